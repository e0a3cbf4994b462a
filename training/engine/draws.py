"""What each slot of each step trains on: timestep, source, image, caption drop and noise.

Every choice is a pure function of (seed, step, slot), so a resumed run repeats what an uninterrupted one would have
drawn, whatever happened in between, and no generator's state needs saving. This module imports no torch.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from training.engine.bands import WORD, Region, Schedule, TableRow, check_table, draw_shares
from training.engine.shuffles import shuffled


@dataclass(frozen=True)
class Draw:
    """One training example. `timestep` is an index of a schedule of betas, or a flow's time. `noise_seed` seeds the diffusion noise and the sample of the image's latent posterior;
    `weight` multiplies its loss (1 except for importance weights)."""

    timestep: float
    source: int
    image: int
    drop_caption: bool
    noise_seed: int
    weight: float = 1.0


@dataclass(frozen=True)
class Mixture:
    """The joint distribution of timestep and source that a recipe table describes.

    natural: t is drawn first (each of T timesteps as often, or a flow's time by its density), then a source by weight
    among those whose band holds t. For Style Tailoring's two rows this is the unweighted sum of the paper's two
    expectations: about 10% content draws on Stable Diffusion's schedule.
    shares: the source is drawn by weight first, then t from its band by the same density cut to the band; with
    `importance_weights` each loss is multiplied by natural / used probability, so that the expected loss is the natural
    one.

    Images are drawn evenly from their source: with "replacement" each anew, in "epochs" as from a shuffled deck that every
    draw of the run moves on by one, whichever source it is for. Of a source alone that is each image once before any comes
    again; of one that gets a share of the draws, no image twice within a deck. Either way a draw knows of no other,
    which is what makes resuming exact.

    `sizes` counts the images of each row. Raises `TableRefused` for a table with gaps or empty bands.
    """

    schedule: Schedule
    rows: tuple[TableRow, ...]
    sizes: tuple[int, ...]
    seed: int
    mode: str = "natural"
    importance_weights: bool = False
    caption_dropout: float = 0.0
    image_draws: str = "replacement"
    images_per_step: int = 1

    def __post_init__(self) -> None:
        check_table(self.schedule, self.rows)

    @cached_property
    def bands(self) -> tuple[Region, ...]:
        return tuple(self.schedule.timesteps_in(row.band) for row in self.rows)

    def holders(self, timestep: float) -> list[int]:
        """The rows that may be drawn for a timestep."""
        return [i for i, band in enumerate(self.bands) if timestep in band]

    def draw(self, step: int, slot: int) -> Draw:
        """The example of slot `slot` (0 .. images per step - 1) of step `step` (from 0)."""
        u_time, u_source, u_image, u_drop, noise_seed = _words(self.seed, step, slot)
        if self.mode == "natural":
            timestep = self.schedule.pick(u_time, self.schedule.axis)
            holders = self.holders(timestep)
            source = holders[_pick_weighted(u_source, [self.rows[i].weight for i in holders])]
            weight = 1.0
        else:
            source = _pick_weighted(u_source, [row.weight for row in self.rows])
            timestep = self.schedule.pick(u_time, self.bands[source])
            weight = self._importance(timestep, source) if self.importance_weights else 1.0
        return Draw(
            timestep=timestep,
            source=source,
            image=self._image(source, step * self.images_per_step + slot, u_image),
            drop_caption=u_drop / WORD < self.caption_dropout,
            noise_seed=noise_seed >> 1,  # torch takes seeds below 2**63.
            weight=weight,
        )

    def shares(self) -> list[float]:
        """The expected share of draws of every row."""
        return draw_shares(self.schedule, self.rows, self.mode)

    def _image(self, source: int, number: int, word: int) -> int:
        """The image of a source for the run's draw of that number (from 0); `word` is the draw's own chance."""
        size = self.sizes[source]
        if self.image_draws == "replacement":
            return _pick(word, size)
        epoch, place = divmod(number, size)
        return shuffled(place, size, first_word("images", self.seed, source, epoch))

    def _importance(self, timestep: float, source: int) -> float:
        """natural / used: the density at the timestep is the same in both, and cancels."""
        weights = [row.weight for row in self.rows]
        natural = weights[source] / sum(weights[i] for i in self.holders(timestep))
        used = weights[source] / sum(weights) / self.schedule.probability(self.bands[source])
        return natural / used


def key_words(*parts: float | str) -> tuple[int, ...]:
    """Eight independent, uniform 64-bit numbers from a key."""
    digest = _digest(parts)
    return tuple(int.from_bytes(digest[i : i + 8], "big") for i in range(0, 64, 8))


def first_word(*parts: float | str) -> int:
    """The first of them."""
    return int.from_bytes(_digest(parts)[:8], "big")


def _digest(parts: Sequence[float | str]) -> bytes:
    return hashlib.blake2b(":".join(str(part) for part in parts).encode(), digest_size=64).digest()


def _words(seed: int, step: int, slot: int) -> tuple[int, int, int, int, int]:
    first, second, third, fourth, fifth, *_ = key_words("draw", seed, step, slot)
    return first, second, third, fourth, fifth


def _pick(word: int, count: int) -> int:
    """A uniform whole number below `count`."""
    return word * count // WORD


def _pick_weighted(word: int, weights: Sequence[float]) -> int:
    edges = list(accumulate(weights))
    return min(bisect_right(edges, word / WORD * edges[-1]), len(weights) - 1)
