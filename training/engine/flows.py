"""The noise levels of flow-matching models: a line from the image to noise instead of a schedule of betas.

x_t = (1 - sigma) x_0 + sigma eps with sigma in (0, 1) (Lipman et al. 2022, arXiv 2210.02747; Esser et al. 2024, arXiv
2403.03206, section 3), so log-SNR = 2 ln((1 - sigma) / sigma) = -2 logit(sigma), and a band of log-SNR is an interval of
sigma. The model is told its time as t = 1000 sigma, which is any number and no index. This module imports no torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from generation.engine.families import FLUX
from training.engine.bands import PAPER_EDGE, WORD, Band, Interval, Region, Split, TableRefused, round_edge

SAMPLINGS = ("logit_normal", "uniform")
WEIGHTINGS = ("none", "sigma_sqrt", "cosmap")
# What only runs on flows set, with the values that say nothing.
FLOW_DEFAULTS: dict[str, Any] = {
    "timestep_sampling": "logit_normal",
    "logit_mean": 0.0,
    "logit_std": 1.0,
    "flow_weighting": "none",
}
# Two regions whose names would be the same to this many decimals of t are one to a reader.
LABEL_DECIMALS = 1
NORMAL = NormalDist()


@dataclass(frozen=True)
class FlowSchedule:
    """The noise levels of a `FlowMatchEulerDiscreteScheduler`.

    `shift` is what training takes of it and `drawing_shift` what drawing takes: the same, unless the scheduler shifts by
    the image's size, which training does without, as diffusers' own scripts do. A shift s moves sigma to
    s sigma / (1 + (s - 1) sigma), which adds ln s to logit(sigma).

    Training draws logit(sigma) from a normal distribution with `mean` + ln shift and `std` ("logit_normal"), or sigma
    evenly before the shift ("uniform").
    """

    num_timesteps: int = 1000
    shift: float = 1.0
    drawing_shift: float = 1.0
    is_dynamic: bool = False
    # Flux's pipeline steps from pure noise to 1 / steps before the shift, and not to the last timestep.
    ends_by_count: bool = False
    sampling: str = "logit_normal"
    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def from_config(cls, config: Mapping[str, Any], image_tokens: int = 0, pipeline: str = "") -> "FlowSchedule":
        """Read a `scheduler_config.json`; `image_tokens` are the patches of the image that is drawn, for a shift by size,
        and `pipeline` the class that draws.

        Raises `TableRefused` for a config that has something else where a number belongs.
        """
        try:
            count, shift = int(config.get("num_train_timesteps", 1000)), float(config.get("shift", 1.0))
            is_dynamic = bool(config.get("use_dynamic_shifting"))
            drawing = _dynamic_shift(config, image_tokens) if is_dynamic else shift
        except (TypeError, ValueError, OverflowError):
            raise TableRefused("The scheduler's config has something else where a number belongs.") from None
        if count < 2 or not (math.isfinite(shift) and shift > 0 and drawing > 0):
            raise TableRefused("The scheduler's shift and timesteps must be positive numbers.")
        return cls(count, 1.0 if is_dynamic else shift, drawing, is_dynamic, pipeline == FLUX.pipeline)

    def sampled(self, values: Mapping[str, Any]) -> "FlowSchedule":
        """The same noise levels, drawn in training as a recipe's settings say."""
        return replace(
            self,
            sampling=values.get("timestep_sampling") or self.sampling,
            mean=float(values["logit_mean"]) if values.get("logit_mean") is not None else self.mean,
            std=float(values.get("logit_std") or self.std),
        )

    @property
    def is_flow(self) -> bool:
        return True

    @property
    def axis(self) -> Interval:
        return Interval(0.0, float(self.num_timesteps))

    @property
    def default_cut(self) -> float:
        """The noise of the paper's split."""
        return self._time(PAPER_EDGE)

    def between(self, start: float, stop: float) -> Interval:
        return Interval(start, stop)

    def timesteps_in(self, band: Band) -> Interval:
        """The timesteps of a band."""
        start = 0.0 if band.log_snr_max is None else self._time(band.log_snr_max)
        stop = float(self.num_timesteps) if band.log_snr_min is None else self._time(band.log_snr_min)
        return Interval(start, stop)

    def timestep_at(self, log_snr: float) -> int:
        """T' for an edge, to the next whole timestep."""
        return round(self._time(log_snr))

    @property
    def t_primes(self) -> range:
        return range(1, self.num_timesteps)

    def split(self, t_prime: int) -> Split:
        """Content in t > T', style in t <= T'."""
        if t_prime not in self.t_primes:
            raise TableRefused(
                f"T' must lie between 1 and {self.t_primes[-1]} on this schedule, so that both bands hold a timestep."
            )
        edge = round_edge(log_snr_of(t_prime / self.num_timesteps))
        return Split(content=Band(None, edge), style=Band(edge, None))

    def probability(self, region: Region) -> float:
        """The share of all training draws that fall into a region."""
        low, high = self._level(region.start), self._level(region.stop)
        if self.sampling == "uniform":
            return self._unshifted(high) - self._unshifted(low)
        return _mass(self._z(low), self._z(high))

    def pick(self, word: int, region: Region) -> float:
        """The timestep below which word / 2**64 of a region's draws lie: the inverse of its truncated density."""
        share = (word + 0.5) / WORD
        low, high = self._level(region.start), self._level(region.stop)
        if self.sampling == "uniform":
            first, last = self._unshifted(low), self._unshifted(high)
            u = first + (last - first) * share
            level = self.shift * u / (1.0 + (self.shift - 1.0) * u)
        else:
            level = _logistic(
                self.mean + math.log(self.shift) + self.std * _quantile(share, self._z(low), self._z(high))
            )
        timestep = level * self.num_timesteps
        # Rounding must not hand an edge to the neighbour, nor end where only the image or only noise is left.
        return min(max(timestep, math.nextafter(region.start, math.inf)), region.stop)

    def drawing_timesteps(self, n_steps: int) -> list[float]:
        """The timesteps that diffusers' pipeline visits in `n_steps` steps, noisiest first.

        Without a shift by size diffusers applies the shift to the end of its line twice; so does this.
        """
        if not 1 <= n_steps <= self.num_timesteps:
            raise TableRefused(f"The number of steps must lie between 1 and {self.num_timesteps}.")
        end = 1.0 / (n_steps if self.ends_by_count else self.num_timesteps)
        if not (self.is_dynamic or self.ends_by_count):
            end = _shifted(end, self.drawing_shift)
        line = [1.0 + (end - 1.0) * i / max(1, n_steps - 1) for i in range(n_steps)]
        return [self.num_timesteps * _shifted(sigma, self.drawing_shift) for sigma in line]

    @property
    def unknown_steps(self) -> str:
        return ""

    def drawn_with(self, scheduler: str) -> "FlowSchedule":
        """Itself: a flow is drawn by its own scheduler alone."""
        return self

    def is_within(self, timestep: float, band: Band) -> bool:
        return timestep in self.timesteps_in(band)

    def describe(self, region: Region) -> str:
        """A region for a person: "t 893 to 1000, σ 0.893 to 1"."""
        if not region:
            return "no timestep"
        low, high = (f"{self._level(edge):.3f}".rstrip("0").rstrip(".") for edge in (region.start, region.stop))
        return f"t {region.start:.0f} to {region.stop:.0f}, σ {low} to {high}"

    def label(self, region: Region) -> str:
        """ "893-1000"."""
        return "-".join(f"{round(edge, LABEL_DECIMALS):g}" for edge in (region.start, region.stop))

    def spread(self, region: Region, count: int) -> list[float]:
        """`count` timesteps in the middle of equal parts of a region, whatever training's density is."""
        width = (region.stop - region.start) / count
        return [region.start + (i + 0.5) * width for i in range(count)]

    def _time(self, log_snr: float) -> float:
        return self.num_timesteps * _logistic(-log_snr / 2.0)

    def _level(self, timestep: float) -> float:
        return timestep / self.num_timesteps

    def _unshifted(self, level: float) -> float:
        return level / (level + self.shift * (1.0 - level))

    def _z(self, level: float) -> float:
        """How many standard deviations a level lies from the density's middle."""
        if level <= 0.0 or level >= 1.0:
            return -math.inf if level <= 0.0 else math.inf
        return (math.log(level / (1.0 - level)) - self.mean - math.log(self.shift)) / self.std


def log_snr_of(sigma: float) -> float:
    """log-SNR of a noise level in (0, 1)."""
    return 2.0 * math.log((1.0 - sigma) / sigma)


def _dynamic_shift(config: Mapping[str, Any], image_tokens: int) -> float:
    """The shift at an image of so many patches, as diffusers' pipelines work it out (`calculate_shift`)."""
    tokens, more = int(config.get("base_image_seq_len", 256)), int(config.get("max_image_seq_len", 4096))
    low, high = float(config.get("base_shift", 0.5)), float(config.get("max_shift", 1.15))
    slope = (high - low) / (more - tokens) if more != tokens else 0.0
    mu = low + slope * (image_tokens - tokens)
    return math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu


def _shifted(sigma: float, shift: float) -> float:
    return shift * sigma / (1.0 + (shift - 1.0) * sigma)


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def _below(z: float) -> float:
    """The standard normal distribution function, exact to the last bits far below zero too."""
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def _mass(low: float, high: float) -> float:
    # Far above zero the function is 1 to all digits: the mirrored interval has the same mass and keeps them.
    return _below(-low) - _below(-high) if low > 0 else _below(high) - _below(low)


def _quantile(share: float, low: float, high: float) -> float:
    """The inverse of the standard normal distribution truncated to low..high."""
    if low > 0:
        return -_quantile(1.0 - share, -high, -low)
    first, last = _below(low), _below(high)
    at = first + (last - first) * share
    # Beyond what a float can tell from 0 and 1 the band's own edges are the answer.
    return min(max(NORMAL.inv_cdf(min(max(at, 5e-324), 1.0 - 2**-53)), low), high)
