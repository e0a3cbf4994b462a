"""Which timesteps diffusers' schedulers visit in so many steps, without diffusers: importing it takes torch, and with it the
memory and the seconds that pages have not. A kind that is not here is not known, and said to be so.

Each kind has its own default where the config says nothing, rounds or does not, and has n or n + 1 points; see Lin et al.
2023 (arXiv 2305.08891), table 2, for the three spacings. The tests compare all of them with diffusers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
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
# With one of these, noise levels are no spacing of timesteps.
_WARPS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_flow_sigmas", "use_lu_lambdas")
# These have no such settings, and ignore what another scheduler's config says of them.
_NEVER_WARPED = (*_WHOLE, "EulerAncestralDiscreteScheduler")


@dataclass(frozen=True)
class Spacing:
    """How a scheduler's steps lie on its timesteps. `spacing` is one of "leading", "linspace" and "trailing"; `unknown` is a
    sentence where its steps are not known here, or an empty text."""

    scheduler: str
    spacing: str
    offset: int = 0
    unknown: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any], scheduler: str, pipeline: str = "") -> "Spacing":
        """How a scheduler of this class draws with a `scheduler_config.json`, which may be another's; `pipeline` is the class
        that draws. Raises ValueError or TypeError for an offset that is no number."""
        default = "leading" if scheduler in _WHOLE else "linspace"
        # The single-step solver has no such setting.
        said = None if scheduler == "DPMSolverSinglestepScheduler" else config.get("timestep_spacing")
        # Stable Diffusion's pipeline makes it 1 whatever the config says; that of XL does not.
        offset = 1 if pipeline == "StableDiffusionPipeline" else int(config.get("steps_offset", 0))
        return cls(scheduler, str(said or default), offset, _why_unknown(config, scheduler))

    def timesteps(self, total: int, count: int) -> list[float]:
        """The timesteps at which `count` steps begin, noisiest first. Schedulers of the second order look between them too,
        which is not counted. Those of Euler's family may lie between two timesteps."""
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


def _why_unknown(config: Mapping[str, Any], scheduler: str) -> str:
    if scheduler not in KNOWN:
        return f"Which timesteps a {scheduler} visits is not known here."
    if scheduler in _NEVER_WARPED:
        return ""
    ways = [way for way in _WARPS if config.get(way)]
    if scheduler == "EulerDiscreteScheduler" and config.get("interpolation_type", "linear") != "linear":
        ways.append("interpolation_type")
    if scheduler.startswith("DPMSolver") and config.get("lambda_min_clipped") not in (None, "-inf", -math.inf):
        ways.append("lambda_min_clipped")
    if not ways:
        return ""
    return f"The scheduler's config has {ways[0]}: which timesteps a {scheduler} visits with it is not known here."
