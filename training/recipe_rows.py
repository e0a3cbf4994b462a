"""A row of a recipe's table: what it learns from, at which noise, and what that comes to in draws and drawing steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.models import DatasetVersion
from training.engine.bands import FULL_BAND, Band, Schedule, describe_band, draw_shares, inference_steps_in_band
from training.engine.recipe import RunSettings
from training.models import Corpus

SCARCE_SHARE = 0.05
SHOWN_STEP_COUNTS = (10, 20, 50)
# What a row learns from.
Data = DatasetVersion | Corpus


class RecipeRefused(Exception):
    """A recipe or run that cannot be trained; `sentence` is for a person and `field` names what to change."""

    def __init__(self, sentence: str, *, field: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.field = field


@dataclass(frozen=True)
class Row:
    """A row of a table that may not be stored yet."""

    name: str
    data: Data
    band: Band = FULL_BAND
    weight: float = 1.0
    # Train with the empty caption, whatever captions the images have.
    prompt_free: bool = False

    @property
    def uncaptioned(self) -> int:
        """How many of its images train with the empty caption."""
        if self.prompt_free:
            return self.data.entry_count
        return self.data.uncaptioned_count if isinstance(self.data, Corpus) else 0

    @property
    def is_without_words(self) -> bool:
        """Whether no image of it trains with a caption."""
        return 0 < self.uncaptioned == self.data.entry_count


@dataclass(frozen=True)
class RowArithmetic:
    """What a row of the table comes to.

    `share` is the share of training draws in [0, 1]; `steps` maps a number of drawing steps to how many of them fall
    into the row's band, None where that is not known; `draws` is how many images of it the whole run is expected to draw and
    `passes` how often each is seen, both None where that is not asked.
    `start` and `width` are the band in timesteps; `held_out` counts the images that only validation sees. A row is scarce
    where a flow's density leaves its band so few draws that more steps alone hardly teach it.
    """

    row: Row
    share: float
    band: str
    start: float
    width: float
    steps: dict[int, int | None]
    passes: float | None
    draws: float | None = None
    held_out: int = 0
    is_scarce: bool = False

    @property
    def scarcity(self) -> str:
        """A sentence where few draws fall into the band, or an empty text."""
        if not self.is_scarce:
            return ""
        return (
            f"Only {100 * self.share:.1f}% of training images teach “{self.row.name}”, since this model's noise levels are "
            "drawn most often in the middle. Fixed shares of the sources give it more: each band then has draws of its own."
        )

    @property
    def warning(self) -> str:
        """A sentence where a number of drawing steps that people take never visits the band, or an empty text."""
        blind = [str(count) for count, inside in self.steps.items() if inside == 0]
        if not blind:
            return ""
        return (
            f"Drawing in {' or '.join(filter(None, (', '.join(blind[:-1]), blind[-1])))} steps never visits the band of “{self.row.name}”: "
            "what is trained there is not seen."
        )


def shown_step_counts(schedule: Schedule, values: Mapping[str, Any]) -> tuple[int, ...]:
    """How many steps the drawings have whose steps are counted: the common numbers and that of the settings' own drawings,
    none more than the schedule has timesteps."""
    asked = {*SHOWN_STEP_COUNTS, int(values.get("sample_steps") or RunSettings.sample_steps)}
    counts = tuple(count for count in sorted(asked) if count <= schedule.num_timesteps)
    return counts or (schedule.num_timesteps,)


def work_out(
    rows: Sequence[Row],
    schedule: Schedule,
    *,
    mixture: str = "natural",
    images: int | None = None,
    holdout: float = 0.0,
    step_counts: Sequence[int] | None = None,
) -> list[RowArithmetic]:
    """The arithmetic of a table; `images` is how many images the whole run draws (steps x batch), `holdout` the share of
    each source's images that it does not train on."""
    step_counts = step_counts or shown_step_counts(schedule, {})
    shares = draw_shares(schedule, rows, mixture)
    worked = []
    for row, share in zip(rows, shares, strict=True):
        inside = schedule.timesteps_in(row.band)
        held_out = int(holdout * row.data.entry_count)
        count = row.data.entry_count - held_out
        worked.append(
            RowArithmetic(
                row=row,
                share=share,
                band=describe_band(schedule, row.band),
                start=inside.start if inside else 0,
                width=inside.stop - inside.start if inside else 0,
                steps={n: inference_steps_in_band(schedule, n, row.band) for n in step_counts},
                passes=images * share / count if images is not None and count else None,
                draws=images * share if images is not None else None,
                held_out=held_out,
                is_scarce=schedule.is_flow and mixture == "natural" and share < SCARCE_SHARE,
            )
        )
    return worked


def unseen_bands(rows: Sequence[Row], schedule: Schedule, values: Mapping[str, Any]) -> list[str]:
    """A sentence for each band that drawings miss, in common numbers of steps or in that of the settings `values`."""
    sums = work_out(rows, schedule, step_counts=shown_step_counts(schedule, values))
    return [row.warning for row in sums if row.warning]
