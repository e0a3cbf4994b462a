"""Noise schedules of models that remove noise in discrete timesteps, as diffusers' schedulers have them.

This module imports no torch: web forms and the trainer do the same arithmetic with it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from training.engine.bands import WORD, Band, Region, Split, TableRefused, round_edge
from training.engine.spacings import DERIVED, Spacing

SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "linspace", "trailing")
# Every page that shows a noise axis computes the schedule; Stable Diffusion has 1,000 timesteps.
MAX_TIMESTEPS = 10_000
DDIM_STEPS = Spacing(DERIVED["ddim"], "leading")


@dataclass(frozen=True)
class NoiseSchedule:
    """A diffusers scheduler's noise schedule, computed without torch.

    `alphas_cumprod[t]` is abar_t for t = 0 .. T-1. It agrees with diffusers' float32 values to about 1e-5 relative.
    """

    alphas_cumprod: tuple[float, ...]
    prediction_type: str = "epsilon"
    spacing: Spacing = DDIM_STEPS
    # By the names that drawing has for schedulers.
    spacings: Mapping[str, Spacing] = field(default_factory=dict, compare=False)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], pipeline: str = "") -> "NoiseSchedule":
        """Read a `scheduler_config.json`; `pipeline` is the class that draws. Its steps are those of DDIM, with which models are
        drawn where nobody says. Raises `TableRefused` for a schedule that the trainer does not know."""
        prediction_type = str(config.get("prediction_type", "epsilon"))
        spacing = str(config.get("timestep_spacing", "leading"))
        if prediction_type not in PREDICTION_TYPES:
            raise TableRefused(f"The scheduler predicts “{prediction_type}”; known are {', '.join(PREDICTION_TYPES)}.")
        if spacing not in SPACINGS:
            raise TableRefused(f"The scheduler spaces timesteps “{spacing}”; known are {', '.join(SPACINGS)}.")
        try:
            betas = _betas(config)
            own = str(config.get("_class_name") or DERIVED["ddim"])
            spacings = {name: Spacing.of(config, kind, pipeline) for name, kind in {"default": own, **DERIVED}.items()}
        except TableRefused:
            raise
        except (TypeError, ValueError, OverflowError):
            raise TableRefused("The scheduler's config has something else where a number belongs.") from None
        *earlier, last = (1.0 - beta for beta in betas)
        if not (all(0.0 < alpha < 1.0 for alpha in earlier) and 0.0 <= last < 1.0):
            raise TableRefused("The scheduler adds no noise, or more than there is, at one of its timesteps.")
        if config.get("rescale_betas_zero_snr"):
            alphas = _zero_terminal_snr(betas)
        else:
            alphas = _cumulative_product([1.0 - beta for beta in betas])
        if alphas[-1] == 0.0 and prediction_type == "epsilon":
            # The noise is all that the model sees there: saying it again teaches nothing of the image.
            raise TableRefused(
                "A schedule that ends in pure noise cannot be trained with epsilon prediction; v_prediction and sample can."
            )
        return cls(tuple(alphas), prediction_type, spacings["ddim"], spacings)

    def drawn_with(self, scheduler: str) -> "NoiseSchedule":
        """The same noise levels, visited by another of the schedulers that drawing has."""
        return replace(self, spacing=self.spacings.get(scheduler, self.spacing))

    @property
    def num_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    @cached_property
    def log_snr(self) -> tuple[float, ...]:
        """log-SNR of every timestep, falling; minus infinity where only noise is left."""
        return tuple(math.log(alpha / (1.0 - alpha)) if alpha > 0.0 else -math.inf for alpha in self.alphas_cumprod)

    @property
    def is_flow(self) -> bool:
        return False

    @property
    def ends_in_noise(self) -> bool:
        """Whether nothing of the image is left at the last timestep."""
        return self.alphas_cumprod[-1] == 0.0

    @property
    def axis(self) -> range:
        return range(self.num_timesteps)

    @property
    def default_cut(self) -> int:
        """A tenth of all timesteps from the noisy end, as the paper has it."""
        return min(self.num_timesteps * 9 // 10 + 1, self.num_timesteps - 1)

    def min_snr_weight(self, timestep: int, gamma: float) -> float:
        """The Min-SNR weight of a timestep's loss, as `batches.Diffusion.loss_weights` has it."""
        alpha = self.alphas_cumprod[timestep]
        snr = alpha / (1.0 - alpha)
        clipped = min(snr, gamma)
        if self.prediction_type == "epsilon":
            return clipped / snr if snr else 1.0
        return clipped / (snr + 1.0) if self.prediction_type == "v_prediction" else clipped

    def between(self, start: float, stop: float) -> range:
        return range(int(start), int(stop))

    def timesteps_in(self, band: Band) -> range:
        """The timesteps of a band; they are contiguous because log-SNR falls with t."""
        inside = [t for t, value in enumerate(self.log_snr) if band.holds(value)]
        return range(inside[0], inside[-1] + 1) if inside else range(0)

    def timestep_at(self, log_snr: float) -> int:
        """T' for an edge: the last timestep whose log-SNR is not below `log_snr` (-1 if there is none)."""
        return sum(value >= log_snr for value in self.log_snr) - 1

    @property
    def t_primes(self) -> range:
        return range(self.num_timesteps - 1)

    def split(self, t_prime: int) -> Split:
        """Content in t > T', style in t <= T': T' itself belongs to style, T' + 1 to content.

        The stored edge is log-SNR(T') rounded down to six decimals, so it reads as the published figure (-4.244 for
        T' = 900 of Stable Diffusion's schedule) and survives a round trip through JSON or a form field.
        """
        if t_prime not in self.t_primes:
            raise TableRefused(f"T' must lie between 0 and {self.t_primes[-1]}, so that both bands hold a timestep.")
        edge = round_edge(self.log_snr[t_prime])
        if self.log_snr[t_prime + 1] >= edge:
            # Two timesteps closer than the rounding: keep the exact value.
            edge = self.log_snr[t_prime]
        return Split(content=Band(None, edge), style=Band(edge, None))

    def sampled(self, values: Mapping[str, Any]) -> "NoiseSchedule":
        """Itself: here training draws every timestep as often."""
        return self

    def probability(self, region: Region) -> float:
        return (region.stop - region.start) / self.num_timesteps

    def pick(self, word: int, region: Region) -> int:
        first, last = int(region.start), int(region.stop)
        return first + word * (last - first) // WORD

    @property
    def unknown_steps(self) -> str:
        return self.spacing.unknown

    def drawing_timesteps(self, n_steps: int) -> list[float]:
        """The timesteps that the scheduler of `spacing` visits in `n_steps` steps, noisiest first; none where they are not
        known."""
        total = self.num_timesteps
        if not 1 <= n_steps <= total:
            raise TableRefused(f"The number of steps must lie between 1 and {total}.")
        if self.spacing.unknown:
            return []
        return self.spacing.timesteps(self._sigmas, n_steps)

    def is_within(self, timestep: float, band: Band) -> bool:
        """Between two timesteps sigma is drawn out in a line, as Euler's steps have it, or its logarithm is where noise is spaced."""
        last = self.num_timesteps - 1
        low = min(max(math.floor(timestep), 0), last)
        high = min(low + 1, last)
        share = timestep - low
        if not 0 < share < 1:
            return band.holds(self.log_snr[low])
        below, above = self._sigmas[low], self._sigmas[high]
        if self.spacing.levels:
            sigma = below ** (1 - share) * above**share
        else:
            sigma = (1 - share) * below + share * above
        return band.holds(-2.0 * math.log(sigma))

    @cached_property
    def _sigmas(self) -> tuple[float, ...]:
        # Where only noise is left diffusers puts a little of the image.
        alphas = (alpha or 2.0**-24 for alpha in self.alphas_cumprod)
        return tuple(math.sqrt((1.0 - alpha) / alpha) for alpha in alphas)

    def spread(self, region: Region, count: int) -> list[float]:
        first, length = int(region.start), int(region.stop - region.start)
        points = min(count, length)
        return [first + int((i + 0.5) * length / points) for i in range(points)]

    def describe(self, region: Region) -> str:
        """ "t 901 to 999 (99 of 1000)"."""
        if not region:
            return "no timestep"
        first, last = int(region.start), int(region.stop) - 1
        return f"t {first} to {last} ({last - first + 1} of {self.num_timesteps})"

    def label(self, region: Region) -> str:
        """ "901-999": the first and last timestep of a region."""
        return f"{int(region.start)}-{int(region.stop) - 1}"


def _betas(config: Mapping[str, Any]) -> list[float]:
    """The schedule's betas as diffusers makes them, by name."""
    count = int(config.get("num_train_timesteps", 1000))
    if config.get("trained_betas") is not None:
        betas = [float(beta) for beta in config["trained_betas"]]
        count = len(betas)
    if not 2 <= count <= MAX_TIMESTEPS:
        raise TableRefused(f"The scheduler has {count} timesteps; it must have between 2 and {MAX_TIMESTEPS:,}.")
    if config.get("trained_betas") is not None:
        return betas
    name = str(config.get("beta_schedule", "linear"))
    start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    if name == "linear":
        return [start + (end - start) * i / (count - 1) for i in range(count)]
    if name == "scaled_linear":
        low, high = math.sqrt(start), math.sqrt(end)
        return [(low + (high - low) * i / (count - 1)) ** 2 for i in range(count)]
    if name == "squaredcos_cap_v2":  # Nichol & Dhariwal 2021, equation 17, capped at 0.999.
        bar = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
        return [min(1.0 - bar[i + 1] / bar[i], 0.999) for i in range(count)]
    raise TableRefused(f"The scheduler's noise schedule “{name}” is not known; known are {', '.join(SCHEDULES)}.")


def _cumulative_product(values: Sequence[float]) -> list[float]:
    product, out = 1.0, []
    for value in values:
        product *= value
        out.append(product)
    return out


def _zero_terminal_snr(betas: Sequence[float]) -> list[float]:
    """Lin et al. 2023 (arXiv 2305.08891), algorithm 1: shift and scale sqrt(abar) so that the last one is zero."""
    roots = [math.sqrt(alpha) for alpha in _cumulative_product([1.0 - beta for beta in betas])]
    first, last = roots[0], roots[-1]
    return [max(0.0, (root - last) * first / (first - last)) ** 2 for root in roots]
