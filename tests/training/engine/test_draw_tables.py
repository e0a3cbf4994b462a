"""Random recipe tables: what is drawn is what the table says, to a bound that a right sampler almost never leaves.

Of a cell of probability p, n draws hold a share q with n KL(q | p) > b with probability 2 exp(-b) at most (Chernoff's
bound, both sides). b makes that one in a million for all cells of all tables here together; the tables and seeds are
the same in every run, so nothing flakes. Unlike a bound on |q - p| it is as sharp for a small share, and a cell that
cannot be drawn must be empty.
"""

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from statistics import NormalDist

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.training.engine.test_bands import SCHEDULE, rows
from training.engine.bands import Band, Schedule, round_edge
from training.engine.draws import Mixture
from training.engine.flows import FlowSchedule

N_DRAWS = 3000
N_TABLES = 20
FLOW = FlowSchedule(shift=3.0, mean=0.4, std=1.2)
SCHEDULES = {
    "discrete": SCHEDULE,
    "flow": FLOW,
    "uniform flow": FlowSchedule(shift=3.0, sampling="uniform"),
}
MODES = ("natural", "shares")
# Of each of four sources: at most seven pieces, all draws, and those of its first image.
N_CELLS = len(SCHEDULES) * len(MODES) * N_TABLES * 4 * (7 + 2)
BOUND = math.log(2 * N_CELLS / 1e-6)


def log_snr(schedule: Schedule, timestep: float) -> float:
    """By its definition: of a schedule of betas ln(abar / (1 - abar)), of a flow 2 ln((1 - sigma) / sigma)."""
    if schedule.is_flow:
        return 2 * math.log((1000 - timestep) / timestep)
    alpha = SCHEDULE.alphas_cumprod[int(timestep)]
    return math.log(alpha / (1 - alpha))


def below(schedule: Schedule, timestep: float) -> float:
    """The share of draws with t <= timestep over the whole axis."""
    if not isinstance(schedule, FlowSchedule):
        return (timestep + 1) / 1000
    sigma = timestep / 1000
    if sigma in (0, 1):
        return sigma
    if schedule.sampling == "uniform":
        return sigma / (sigma + schedule.shift * (1 - sigma))
    middle = schedule.mean + math.log(schedule.shift)
    return NormalDist(middle, schedule.std).cdf(math.log(sigma / (1 - sigma)))


@st.composite
def tables(draw: st.DrawFn, schedule: Schedule) -> tuple[Mixture, list[float]]:
    """(a mixture without gaps of one to four sources, the timesteps where its bands end): neighbours, of which each may
    reach into the others."""
    count = draw(st.integers(1, 4))
    inner = draw(st.lists(st.integers(20, 979), min_size=count - 1, max_size=count - 1, unique=True))
    ends = [None, *sorted(inner), None]
    reach = st.one_of(st.just(0), st.integers(1, 900))
    bands, cuts = [], set()
    for low, high in pairwise(ends):
        first = None if low is None or low - (more := draw(reach)) < 20 else low - more
        last = None if high is None or high + (more := draw(reach)) > 979 else high + more
        # A band holds its lower log-SNR, which is the larger timestep, and not its upper one.
        edges = [None if t is None else round_edge(log_snr(schedule, t)) for t in (last, first)]
        bands.append(Band(*edges))
        for edge, t in zip(edges, (last, first), strict=True):
            if edge is not None and t is not None:
                cuts.add(1000 / (1 + math.exp(edge / 2)) if schedule.is_flow else float(t))
    weights = draw(st.lists(st.floats(0.05, 20), min_size=count, max_size=count))
    sizes = draw(st.lists(st.integers(1, 5) | st.integers(6, 40), min_size=count, max_size=count))
    order = draw(st.permutations(range(count)))
    table = rows(*(bands[i] for i in order), weights=tuple(weights))
    axis = [0.0, 1000.0] if schedule.is_flow else [-1.0, 999.0]
    mixture = Mixture(schedule, tuple(table), tuple(sizes), seed=draw(st.integers(0, 2**31)))
    return mixture, sorted({*axis, *cuts})


def expected(mixture: Mixture, edges: list[float]) -> dict[tuple[int, int], float]:
    """(source, piece of the axis) -> the share of draws, from the definitions of both mixtures."""
    schedule, table = mixture.schedule, mixture.rows
    pieces = list(pairwise(edges))
    chances = [below(schedule, high) - below(schedule, low) for low, high in pieces]
    # All of a piece is in a band, or nothing of it.
    inside = [(low + high) / 2 if schedule.is_flow else high for low, high in pieces]
    held = [[row.band.holds(log_snr(schedule, t)) for t in inside] for row in table]
    total = sum(row.weight for row in table)
    shares = {}
    for i, row in enumerate(table):
        reached = sum(chance for chance, holds in zip(chances, held[i], strict=True) if holds)
        for piece, chance in enumerate(chances):
            if mixture.mode == "natural":
                rivals = sum(other.weight for j, other in enumerate(table) if held[j][piece])
                shares[i, piece] = chance * row.weight / rivals if held[i][piece] else 0.0
            else:
                shares[i, piece] = row.weight / total * chance / reached if held[i][piece] else 0.0
    return shares


def check(count: int, chance: float, what: object) -> None:
    chance = min(1.0, chance)
    share = count / N_DRAWS
    parts = ((share, chance), (1 - share, 1 - chance))
    # Where a share was drawn that cannot be, it is infinitely far.
    distance = sum(
        (part * math.log(part / wanted) if wanted > 1e-15 else math.inf) for part, wanted in parts if part > 0
    )
    assert distance * N_DRAWS <= BOUND, f"{what}: {share} of the draws, not {chance}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_draws_of_a_random_table_match_its_expectation(name: str, mode: str) -> None:
    # A smaller table that fails says no more, and costs minutes to find.
    @settings(max_examples=N_TABLES, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
    @given(tables(SCHEDULES[name]))
    def holds(drawn: tuple[Mixture, list[float]]) -> None:
        mixture, edges = replace(drawn[0], mode=mode), drawn[1]
        wanted = expected(mixture, edges)
        draws = [mixture.draw(i // 8, i % 8) for i in range(N_DRAWS)]
        counts = Counter((each.source, bisect_left(edges, each.timestep) - 1) for each in draws)
        assert set(counts) <= set(wanted)
        sources = Counter(each.source for each in draws)
        images = Counter((each.source, each.image) for each in draws)
        for cell, share in wanted.items():
            check(counts[cell], share, cell)
        for i, share in enumerate(mixture.shares()):
            alone = sum(wanted[i, piece] for piece in range(len(edges) - 1))
            assert share == pytest.approx(alone, abs=1e-6)
            check(sources[i], alone, f"source {i}")
            check(images[i, 0], alone / mixture.sizes[i], f"image 0 of source {i}")
        assert all(each.image in range(mixture.sizes[each.source]) for each in draws)

    holds()


def test_a_count_beyond_the_bound_is_seen() -> None:
    check(1500, 0.5, "")
    for count, chance in ((1500, 0.57), (1, 0.0), (2999, 1.0), (100, 0.01), (0, 0.02)):
        with pytest.raises(AssertionError, match="of the draws, not"):
            check(count, chance, "")
