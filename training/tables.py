"""Recipe tables as pages show them: arithmetic, thumbnails, and the noise axis in the units of its drawing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.models import DatasetKind
from generation.models import ModelVersion
from training.engine.averages import decay_at, steps_until
from training.engine.bands import PAPER_T_PRIME, Schedule, paper_t_prime
from training.engine.noise import NoiseSchedule
from training.image_shapes import ShapeTable, table_of_shapes
from training.min_snr import say_weights
from training.models import Corpus
from training.recipe_rows import Data, Row, RowArithmetic, shown_step_counts, work_out

THUMBNAILS = 5
LANE_HEIGHT = 28
TICK_HEIGHT = 12
WORD_HEIGHT = 20
SERIES = 6
# The axis shows the steps of a drawing of so many.
DRAWING_STEPS = 20
WITHOUT_WORDS = "Nothing here has a caption: the model learns how these images look, and not what prompts mean."


@dataclass(frozen=True)
class Shown:
    """One of a row's images: the SHA-256 of its thumbnail, and its caption."""

    thumbnail: str
    caption: str


@dataclass(frozen=True)
class RowView:
    """One row with its arithmetic, up to five images, and its lane on the axis, in percent of the axis.

    `series` is its colour, 1 to 6.
    """

    sums: RowArithmetic
    shown: list[Shown]
    series: int
    y: int
    start: str
    width: str

    @property
    def holds_pairs(self) -> bool:
        data = self.sums.row.data
        return not isinstance(data, Corpus) and data.dataset.kind == DatasetKind.PAIRS

    @property
    def percent(self) -> float:
        return 100 * self.sums.share

    @property
    def step_counts(self) -> list[tuple[int, int | None]]:
        return list(self.sums.steps.items())


@dataclass(frozen=True)
class TableView:
    """One table. The axis runs from t = 0 (clean) to `timesteps` (noise); `edge` is T' where the table has one split, which
    is drawn at `edge_start`. On a flow the last timestep is the end of the axis itself."""

    name: str
    rows: list[RowView]
    timesteps: int
    ticks: list[float]
    step_counts: tuple[int, ...]
    edge: int | None
    # A decoder learns at no noise level: its table has no axis.
    has_noise: bool
    edge_start: float
    is_flow: bool
    # Whether a source is drawn first, by its weight, and then the noise.
    has_shares: bool = False
    # The T' that is the noise of the paper's here, where it is another number.
    paper_t_prime: int | None = None
    # How many images the whole run draws; 0 where it is not known.
    images: int = 0
    shapes: ShapeTable | None = None
    # What settings come to here, in sentences.
    notes: tuple[str, ...] = ()
    # What Min-SNR leaves without weight, and that drawing never begins in pure noise, as sentences.
    starving: str = ""
    unvisited: str = ""

    @property
    def tick_y(self) -> int:
        return LANE_HEIGHT * len(self.rows)

    @property
    def last_timestep(self) -> int:
        return self.timesteps if self.is_flow else self.timesteps - 1

    @property
    def tick_end(self) -> int:
        return self.tick_y + TICK_HEIGHT

    @property
    def word_y(self) -> int:
        return self.tick_end + WORD_HEIGHT - 5

    @property
    def height(self) -> int:
        return self.tick_end + (WORD_HEIGHT if self.edge is not None else 0)

    @property
    def tick_places(self) -> list[str]:
        return [place(tick, self.timesteps) for tick in self.ticks]

    @property
    def edge_place(self) -> str:
        """Behind the last timestep of the band below."""
        return "" if self.edge is None else place(self.edge_start, self.timesteps)

    @property
    def edge_anchor(self) -> str:
        """Which end of the word stands at the edge, so that it stays within the axis."""
        share = 0.5 if self.edge is None else self.edge / self.timesteps
        return "start" if share < 0.1 else "end" if share > 0.9 else "middle"

    @property
    def warnings(self) -> list[str]:
        if not self.has_noise:
            return []
        found = [text for row in self.rows for text in (row.sums.scarcity, row.sums.warning) if text]
        if all(row.sums.row.is_without_words for row in self.rows):
            found.append(WITHOUT_WORDS)
        return [*found, *filter(None, (self.starving, self.unvisited))]


def place(timestep: float, timesteps: int) -> str:
    """A timestep in percent of the axis, for an attribute of the drawing."""
    return f"{100 * timestep / timesteps:.2f}"


def view_tables(
    tables: Sequence[tuple[str, Sequence[Row], Mapping[str, Any]]],
    schedule: Schedule,
    version: ModelVersion | None = None,
) -> list[TableView]:
    """Every (name, rows, hyperparameters) as a page shows it; a series keeps its colour across the tables. `version` is that
    of the schedule, for the shapes of images."""
    counted, papers = steps_in_words(schedule), paper_t_prime(schedule)
    views, series = [], 0
    for name, rows, hyperparameters in tables:
        images = int(hyperparameters.get("steps") or 0) * int(hyperparameters.get("batch_size") or 0)
        images *= int(hyperparameters.get("gradient_accumulation") or 1)
        step_counts = shown_step_counts(schedule, hyperparameters)
        sums = work_out(
            rows,
            schedule.sampled(hyperparameters),
            mixture=hyperparameters.get("mixture") or "natural",
            images=images or None,
            holdout=float(hyperparameters.get("holdout") or 0),
            step_counts=step_counts,
        )
        total = schedule.num_timesteps
        lanes = [
            RowView(
                sums=row,
                shown=_shown(row.row.data),
                series=(series + i) % SERIES + 1,
                y=LANE_HEIGHT * i,
                start=place(row.start, total),
                width=place(row.width, total),
            )
            for i, row in enumerate(sums)
        ]
        series += len(lanes)
        weights, starving = say_weights(schedule, rows, hyperparameters)
        edges = {row.start: row.row.band.log_snr_max for row in sums if row.start > 0}
        (edge_start, edge), *others = edges.items() or [(0, None)]
        views.append(
            TableView(
                name=name,
                rows=lanes,
                timesteps=schedule.num_timesteps,
                ticks=list(schedule.drawing_timesteps(min(DRAWING_STEPS, schedule.num_timesteps))),
                step_counts=step_counts,
                has_noise=hyperparameters.get("objective") != "alpha",
                edge=schedule.timestep_at(edge) if edge is not None and not others else None,
                edge_start=edge_start,
                is_flow=schedule.is_flow,
                has_shares=hyperparameters.get("mixture") == "shares",
                paper_t_prime=papers if papers != PAPER_T_PRIME else None,
                shapes=table_of_shapes(sums, hyperparameters, version),
                images=images,
                notes=tuple(
                    filter(
                        None,
                        (
                            counted if hyperparameters.get("objective") != "alpha" else "",
                            weights,
                            average_in_words(hyperparameters),
                        ),
                    )
                ),
                starving=starving,
                unvisited=unvisited_noise(schedule),
            )
        )
    return views


# How the noise of drawing steps is spaced, where the timesteps are not.
NOISE_SPACED = {
    "karras": "with noise that falls by Karras' rule",
    "exponential": "with noise that falls evenly in its logarithm",
}


def steps_in_words(schedule: Schedule) -> str:
    """Whose steps are counted, or why none are, as a sentence; an empty text for a flow, which has one scheduler."""
    if schedule.unknown_steps or not isinstance(schedule, NoiseSchedule):
        return schedule.unknown_steps
    spacing = schedule.spacing
    name = spacing.scheduler.removesuffix("Scheduler")
    how = NOISE_SPACED[spacing.levels] if spacing.levels else f"spaced as “{spacing.spacing}”"
    return f"Drawing steps are counted as {name} takes them here, {how}."


def unvisited_noise(schedule: Schedule) -> str:
    """A sentence where training ends in pure noise and drawing begins below it (Lin et al. 2023, arXiv 2305.08891, section
    3.3); an empty text elsewhere."""
    if not isinstance(schedule, NoiseSchedule) or not schedule.ends_in_noise or schedule.unknown_steps:
        return ""
    last = schedule.num_timesteps - 1
    first = round(max(schedule.drawing_timesteps(min(DRAWING_STEPS, last))))
    # What is cut to a whole timestep may be a bit too small for the last one.
    if first >= last - (schedule.spacing.whole == "floor"):
        return ""
    return (
        f"The last timestep of this model, {last}, is pure noise, but its scheduler spaces steps as “{schedule.spacing.spacing}” and "
        f"never visits it: {min(DRAWING_STEPS, last)} steps begin at {first}, where a model is told that something of the image is "
        "left. Set the scheduler's timestep_spacing to “trailing”."
    )


def average_in_words(hyperparameters: Mapping[str, Any]) -> str:
    """How slow the moving average gets, where the run is too short for its decay; an empty text where it is not."""
    decay, steps = hyperparameters.get("ema_decay"), int(hyperparameters.get("steps") or 0)
    if not decay or not steps or not 0 < decay < 1:
        return ""
    reached = decay_at(decay, steps - 1)
    if reached >= decay:
        return ""
    # A decay of d remembers about 1 / (1 - d) steps.
    return (
        f"The moving average gets to a decay of {reached:.3g} by the end of {steps:,} steps and not to {decay:g}, so it is "
        f"of about the last {round(1 / (1 - reached)):,} steps: a decay grows from 0.1, and reaches {decay:g} after "
        f"{steps_until(decay):,} steps."
    )


def _shown(data: Data) -> list[Shown]:
    if isinstance(data, Corpus):
        return [Shown(each["thumbnail"], each["caption"]) for each in data.samples[:THUMBNAILS]]
    entries = data.entries.select_related("sample").order_by("position")[:THUMBNAILS]
    return [Shown(entry.sample.thumbnail, entry.caption) for entry in entries]
