"""Which timesteps diffusers' schedulers visit in so many steps, without diffusers: importing it takes torch, and with it the
memory and the seconds that pages have not. A kind that is not here is not known, and said to be so.

Each kind has its own default where the config says nothing, rounds or does not, and has n or n + 1 points; see Lin et al.
2023 (arXiv 2305.08891), table 2, for the three spacings. Instead of timesteps the noise itself can be spaced: by Karras et al. 2022
(arXiv 2206.00364), equation 5, or evenly in its logarithm. The tests compare all of them with diffusers.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

# What drawing calls them, and the classes that it derives; "default" is the model's own.
DERIVED = {"ddim": "DDIMScheduler", "dpm++": "DPMSolverMultistepScheduler", "euler": "EulerDiscreteScheduler"}
_WHOLE = ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler")
_ONE_MORE = (
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
)
_SIGMAS = (
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
)
KNOWN = (*_WHOLE, *_ONE_MORE, *_SIGMAS)
# With one of these the noise is spaced, not the timesteps.
_LEVELS = {"use_karras_sigmas": "karras", "use_exponential_sigmas": "exponential"}
_WARPS = (*_LEVELS, "use_beta_sigmas", "use_flow_sigmas", "use_lu_lambdas")
# These know schedules that end in pure noise.
_ENDS_IN_NOISE = ("DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler")
# These have no such settings, and ignore what another scheduler's config says of them.
_NEVER_WARPED = (*_WHOLE, "EulerAncestralDiscreteScheduler")


@dataclass(frozen=True)
class Spacing:
    """How a scheduler's steps lie on its timesteps. `spacing` is one of "leading", "linspace" and "trailing"; `unknown` is a
    sentence where its steps are not known here, or an empty text.

    `levels` is "karras" or "exponential" where the noise is spaced instead, between `sigma_min` and `sigma_max` where the config
    says them; `whole` is how a timestep is made of a level that lies between two: "round", "floor", or "" for neither.
    """

    scheduler: str
    spacing: str
    offset: int = 0
    unknown: str = ""
    levels: str = ""
    sigma_min: float | None = None
    sigma_max: float | None = None
    whole: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any], scheduler: str, pipeline: str = "") -> "Spacing":
        """How a scheduler of this class draws with a `scheduler_config.json`, which may be another's; `pipeline` is the class
        that draws. Raises ValueError or TypeError for an offset that is no number."""
        default = "leading" if scheduler in _WHOLE else "linspace"
        # The single-step solver has no such setting.
        said = None if scheduler == "DPMSolverSinglestepScheduler" else config.get("timestep_spacing")
        # Stable Diffusion's pipeline makes it 1 whatever the config says; that of XL does not.
        offset = 1 if pipeline == "StableDiffusionPipeline" else int(config.get("steps_offset", 0))
        plain = cls(scheduler, str(said or default), offset, _why_unknown(config, scheduler))
        ways = _warps(config, scheduler)
        if plain.unknown or not ways:
            return plain
        # All of them heed these two, though only Euler's has them as settings: what a config says beyond a scheduler's own is kept.
        low, high = (None if config.get(name) is None else float(config[name]) for name in ("sigma_min", "sigma_max"))
        if not all(bound is None or 0 < bound < math.inf for bound in (low, high)):
            return replace(
                plain, unknown="The scheduler's config has a sigma_min or sigma_max that is no level of noise."
            )
        levels = _LEVELS[ways[0]]
        whole = _whole(scheduler, levels, is_cosine=config.get("beta_schedule") == "squaredcos_cap_v2")
        return replace(plain, levels=levels, sigma_min=low, sigma_max=high, whole=whole)

    def timesteps(self, sigmas: Sequence[float], count: int) -> list[float]:
        """The timesteps at which `count` steps begin, noisiest first, of a schedule with these noise levels. Schedulers of the
        second order look between them too, which is not counted. Those of Euler's family may lie between two timesteps."""
        evenly = self._spaced(len(sigmas), count)
        if not self.levels:
            return evenly
        low, high = (
            (sigmas[0], sigmas[-1])
            if self.scheduler in _ONE_MORE
            else (_at(sigmas, evenly[-1]), _at(sigmas, evenly[0]))
        )
        low, high = self.sigma_min or low, self.sigma_max or high
        # Karras' rho is 7.
        bend, unbend = (
            (math.log, math.exp) if self.levels == "exponential" else (lambda s: s ** (1 / 7), lambda s: s**7)
        )
        first, last = bend(high), bend(low)
        levels = [unbend(first + (last - first) * i / max(count - 1, 1)) for i in range(count)]
        logarithms = [math.log(sigma) for sigma in sigmas]
        found = [_timestep_of(math.log(level), logarithms) for level in levels]
        return [float(round(t)) if self.whole == "round" else math.floor(t) if self.whole else t for t in found]

    def _spaced(self, total: int, count: int) -> list[float]:
        if self.spacing == "trailing":
            step = total - (total - total / count)
            return [float(round(total - i * step) - 1) for i in range(math.ceil(total / (total / count)))]
        intervals = count if self.scheduler in _ONE_MORE else count - 1
        first = 1 if self.scheduler in _ONE_MORE else 0
        places = range(first + count - 1, first - 1, -1)
        if self.spacing == "leading":
            ratio = total // (intervals + 1)
            return [float(i * ratio + self.offset) for i in places]
        if not intervals:
            return [0.0]
        line = [i * ((total - 1) / intervals) for i in places]
        return line if self.scheduler in _SIGMAS else [float(round(t)) for t in line]


def _at(sigmas: Sequence[float], timestep: float) -> float:
    """The level at a timestep, which may lie between two."""
    low = min(int(timestep), len(sigmas) - 1)
    return sigmas[low] + (timestep - low) * (sigmas[min(low + 1, len(sigmas) - 1)] - sigmas[low])


def _timestep_of(level: float, levels: Sequence[float]) -> float:
    """Where a level lies on a schedule that rises; all are logarithms."""
    low = min(max(bisect_right(levels, level) - 1, 0), len(levels) - 2)
    share = (level - levels[low]) / (levels[low + 1] - levels[low])
    return low + min(max(share, 0.0), 1.0)


def _whole(scheduler: str, levels: str, *, is_cosine: bool) -> str:
    if scheduler in _ONE_MORE:
        rounds = levels == "karras" and not (is_cosine and scheduler == "DPMSolverMultistepScheduler")
        return "round" if rounds else "floor"
    return "round" if levels == "karras" and scheduler.startswith("KDPM2") else ""


def _warps(config: Mapping[str, Any], scheduler: str) -> list[str]:
    return [] if scheduler in _NEVER_WARPED else [way for way in _WARPS if config.get(way)]


def _why_unknown(config: Mapping[str, Any], scheduler: str) -> str:
    if scheduler not in KNOWN:
        return f"Which timesteps a {scheduler} visits is not known here."
    if scheduler in _NEVER_WARPED:
        return ""
    ways = _warps(config, scheduler)
    if len(ways) == 1 and ways[0] in _LEVELS:
        # The others ignore it, and draw from a level that the model's own schedule does not have.
        ends_otherwise = config.get("rescale_betas_zero_snr") and scheduler not in _ENDS_IN_NOISE
        ways = ["rescale_betas_zero_snr"] if ends_otherwise else []
    if scheduler == "EulerDiscreteScheduler" and config.get("interpolation_type", "linear") != "linear":
        ways.append("interpolation_type")
    if scheduler.startswith("DPMSolver") and config.get("lambda_min_clipped") not in (None, "-inf", -math.inf):
        ways.append("lambda_min_clipped")
    if not ways:
        return ""
    return f"The scheduler's config has {ways[0]}: which timesteps a {scheduler} visits with it is not known here."
