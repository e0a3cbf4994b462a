"""Timestep bands: which noise levels a source of training data is drawn for.

A band is a half-open interval of log-SNR, `[log_snr_min, log_snr_max)`, because the split of Style Tailoring
(arXiv 2311.10794, section 3.3) is a statement about noise and not about an index: the same band means the same noise
on every schedule. log-SNR(t) = ln(abar_t / (1 - abar_t)) falls as t grows, so large t are small log-SNR.

This module imports no torch: web forms and the trainer do the same arithmetic with it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, Self

# A stored edge is rounded down to this many decimals: far below the distance of two timesteps (about 0.01) and far
# above the last bits in which two machines' logarithms may differ.
EDGE_DECIMALS = 6
# Beyond this there is no noise at all, or nothing else: numbers of 64 bits tell apart levels from about -745 to 37.
LARGEST_EDGE = 1000.0
# The paper's split: T' on Stable Diffusion's schedule, and as stored, the log-SNR there.
PAPER_T_PRIME = 900
PAPER_EDGE = -4.243708
# Of what a flow's density leaves less than this in a band, shares and weights cannot be computed any more.
LEAST_PROBABILITY = 1e-300
# Random numbers are whole and below this.
WORD = 2**64


class TableRefused(ValueError):
    """A recipe table, band or schedule that cannot be trained; `sentence` is written for a person."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


@dataclass(frozen=True)
class Band:
    """The log-SNR values `log_snr_min <= x < log_snr_max`; None leaves that side open."""

    log_snr_min: float | None = None
    log_snr_max: float | None = None

    def holds(self, log_snr: float) -> bool:
        above = self.log_snr_min is None or log_snr >= self.log_snr_min
        return above and (self.log_snr_max is None or log_snr < self.log_snr_max)


FULL_BAND = Band()


class TableRow(Protocol):
    """What a row of a recipe table must have; `recipe.Source` is one."""

    @property
    def name(self) -> str: ...

    @property
    def band(self) -> Band: ...

    @property
    def weight(self) -> float: ...


@dataclass(frozen=True)
class Interval:
    """The timesteps start < t <= stop, as real numbers: the edge itself belongs to the side with less noise."""

    start: float
    stop: float

    def __contains__(self, timestep: float) -> bool:
        return self.start < timestep <= self.stop

    def __bool__(self) -> bool:
        return self.start < self.stop


# Timesteps beside each other: indices of a schedule of betas, or the real times of a flow.
Region = range | Interval


@dataclass(frozen=True)
class Split:
    """The two bands of Style Tailoring: content where t > T', style where t <= T'."""

    content: Band
    style: Band


class Schedule(Protocol):
    """The noise levels of a model, and how training and drawing visit them: `noise.NoiseSchedule` or `flows.FlowSchedule`.

    `is_flow` says which. Regions are `range` on the one and `Interval` on the other; both count timesteps from clean to
    noise.
    """

    @property
    def is_flow(self) -> bool: ...

    @property
    def num_timesteps(self) -> int: ...

    @property
    def axis(self) -> Region:
        """All timesteps."""
        ...

    @property
    def default_cut(self) -> float:
        """Where a region begins that no band of a table cuts off: losses there are never averaged away."""
        ...

    def between(self, start: float, stop: float) -> Region: ...

    def timesteps_in(self, band: Band) -> Region:
        """The timesteps of a band; they lie beside each other because log-SNR falls with t."""
        ...

    def timestep_at(self, log_snr: float) -> int:
        """T' for an edge: the last timestep whose log-SNR is not below `log_snr`."""
        ...

    @property
    def t_primes(self) -> range:
        """Every T' that leaves both bands a timestep."""
        ...

    def split(self, t_prime: int) -> Split: ...

    def sampled(self, values: Mapping[str, Any]) -> Self:
        """The same noise levels, drawn in training as a recipe's settings say."""
        ...

    def probability(self, region: Region) -> float:
        """The share of all training draws that fall into a region."""
        ...

    def pick(self, word: int, region: Region) -> float:
        """The timestep of a region that a uniform whole number below `WORD` stands for, by training's density."""
        ...

    def drawing_timesteps(self, n_steps: int) -> Sequence[float]:
        """The timesteps that drawing visits in `n_steps` steps, noisiest first; none where `unknown_steps` says why."""
        ...

    @property
    def unknown_steps(self) -> str:
        """Why it is not known which timesteps drawing visits, as a sentence, or an empty text."""
        ...

    def drawn_with(self, scheduler: str) -> Self:
        """The same noise levels, visited by another of the schedulers that drawing has."""
        ...

    def is_within(self, timestep: float, band: Band) -> bool:
        """Whether a timestep that drawing visits lies in a band."""
        ...

    def spread(self, region: Region, count: int) -> list[float]:
        """Up to `count` timesteps in the middle of equal parts of a region."""
        ...

    def describe(self, region: Region) -> str:
        """A region for a person."""
        ...

    def label(self, region: Region) -> str:
        """A region's name in metrics, "901-999"."""
        ...


def round_edge(log_snr: float) -> float:
    """An edge as it is stored."""
    scale = 10**EDGE_DECIMALS
    return math.floor(log_snr * scale) / scale


def split_at(schedule: Schedule, t_prime: int = PAPER_T_PRIME) -> Split:
    """The two bands of Style Tailoring at T'. Raises `TableRefused` for a T' that leaves one of them empty."""
    return schedule.split(t_prime)


def paper_t_prime(schedule: Schedule) -> int | None:
    """The T' of a schedule that is the noise of the paper's; None where that leaves one of the bands empty."""
    found = schedule.timestep_at(PAPER_EDGE)
    return found if found in schedule.t_primes else None


def suggested_t_prime(schedule: Schedule) -> int:
    """The T' to begin with: the noise of the paper's, or where a band would be empty, what comes nearest to it."""
    possible = schedule.t_primes
    return min(max(schedule.timestep_at(PAPER_EDGE), possible[0]), possible[-1])


def suggested_sweep(schedule: Schedule) -> list[int]:
    """Values of T' to compare, rising: that to begin with, and a twentieth of the timesteps below and above it as far as there are."""
    possible, middle = schedule.t_primes, suggested_t_prime(schedule)
    step = max(1, round(len(possible) / 20))
    return sorted({min(max(middle + way * step, possible[0]), possible[-1]) for way in (-1, 0, 1)})


def describe_band(schedule: Schedule, band: Band) -> str:
    """A band in timesteps, for a person: "t 901 to 999 (99 of 1000)"."""
    return schedule.describe(schedule.timesteps_in(band))


def table_problems(schedule: Schedule, rows: Sequence[TableRow]) -> list[str]:
    """Sentences for everything that makes a recipe table untrainable; an empty list means that it is fine.

    Bands may overlap: where they do, sources are drawn by their weights.
    """
    if not rows:
        return ["The recipe has no source."]
    problems = []
    for row in rows:
        low, high = row.band.log_snr_min, row.band.log_snr_max
        if not (math.isfinite(row.weight) and row.weight > 0):
            problems.append(f"The weight of “{row.name}” must be a positive number.")
        if any(edge is not None and not abs(edge) <= LARGEST_EDGE for edge in (low, high)):
            problems.append(
                f"The band of “{row.name}” has an edge at a log-SNR beyond ±{LARGEST_EDGE:g}: leave that side open."
            )
        elif low is not None and high is not None and low >= high:
            problems.append(f"The band of “{row.name}” ends before it begins.")
        elif not schedule.timesteps_in(row.band):
            problems.append(f"The band of “{row.name}” holds no timestep of this schedule.")
        elif schedule.probability(schedule.timesteps_in(row.band)) < LEAST_PROBABILITY:
            problems.append(
                f"The band of “{row.name}” is never drawn: it lies too far from the noise levels that training draws. Widen their "
                "spread, or move the band."
            )
    bands = [schedule.timesteps_in(row.band) for row in rows]
    gaps = [piece for piece in pieces_of(schedule, rows) if not any(_covers(band, piece) for band in bands)]
    problems += [f"No source covers the timesteps {schedule.label(gap).replace('-', ' to ')}." for gap in gaps]
    return problems


def pieces_of(schedule: Schedule, rows: Sequence[TableRow], region: Region | None = None) -> list[Region]:
    """A region, or the whole axis, cut wherever a band of the table begins or ends within it."""
    whole = schedule.axis if region is None else region
    bands = [schedule.timesteps_in(row.band) for row in rows]
    cuts = {edge for band in bands if band for edge in (band.start, band.stop) if whole.start < edge < whole.stop}
    return [schedule.between(low, high) for low, high in pairwise([whole.start, *sorted(cuts), whole.stop])]


def _covers(band: Region, piece: Region) -> bool:
    """Whether a band holds a piece that no band's edge cuts."""
    return bool(band) and band.start <= piece.start and piece.stop <= band.stop


def check_table(schedule: Schedule, rows: Sequence[TableRow]) -> None:
    """Raise `TableRefused` with all sentences of `table_problems`, if there are any."""
    problems = table_problems(schedule, rows)
    if problems:
        raise TableRefused(" ".join(problems))


def draw_shares(schedule: Schedule, rows: Sequence[TableRow], mixture: str = "natural") -> list[float]:
    """The expected share of training draws of every row; they add up to 1 for a table without gaps.

    natural: t is drawn first, then a source by weight among those whose band holds t.
    shares: a source is drawn by weight, then t from its band.
    """
    if mixture == "shares":
        total = sum(row.weight for row in rows)
        return [row.weight / total for row in rows]
    return cell_shares(schedule, rows, schedule.axis)


def report_regions(schedule: Schedule, rows: Sequence[TableRow]) -> list[Region]:
    """The parts of the axis for which losses are reported apart: cut wherever a band of the table begins or ends.

    A table of full bands is cut at the noisy end all the same, so that it can be compared with a split one, and so that
    no table's losses hide that end.
    """
    pieces = pieces_of(schedule, rows)
    if len(pieces) > 1:
        return pieces
    cut, whole = schedule.default_cut, schedule.axis
    return [schedule.between(whole.start, cut), schedule.between(cut, whole.stop)]


def cell_shares(schedule: Schedule, rows: Sequence[TableRow], region: Region) -> list[float]:
    """The natural share of draws of every row within one region of timesteps."""
    bands = [schedule.timesteps_in(row.band) for row in rows]
    shares = [0.0] * len(rows)
    for piece in pieces_of(schedule, rows, region):
        holders = [i for i, band in enumerate(bands) if _covers(band, piece)]
        total = sum(rows[i].weight for i in holders)
        for i in holders:
            shares[i] += rows[i].weight / total * schedule.probability(piece)
    return shares


def inference_steps_in_band(schedule: Schedule, n_steps: int, band: Band) -> int | None:
    """How many of `n_steps` drawing steps fall into a band; None where that is not known. 0 for content is worth a warning:
    training in that band then changes nothing that anyone sees."""
    visited = schedule.drawing_timesteps(n_steps)
    return None if schedule.unknown_steps else sum(schedule.is_within(t, band) for t in visited)
