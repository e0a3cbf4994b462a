"""The arithmetic of bands: edges, gaps, shares and inference steps, against diffusers' own schedulers."""

import json
import math

import pytest
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st

from training.engine.bands import (
    LARGEST_EDGE,
    Band,
    TableRefused,
    check_table,
    describe_band,
    draw_shares,
    inference_steps_in_band,
    paper_t_prime,
    report_regions,
    split_at,
    suggested_sweep,
    suggested_t_prime,
    table_problems,
)
from training.engine.noise import SCHEDULES, SPACINGS, NoiseSchedule
from training.engine.recipe import Source

STABLE_DIFFUSION = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "steps_offset": 1,
}
SCHEDULE = NoiseSchedule.from_config(STABLE_DIFFUSION)
SPLIT = split_at(SCHEDULE, 900)


def rows(*bands: Band, weights: tuple[float, ...] = ()) -> list[Source]:
    return [Source(f"s{i}", "x", band, (weights or (1.0,) * len(bands))[i]) for i, band in enumerate(bands)]


def test_edge_of_the_split_belongs_to_style() -> None:
    assert SCHEDULE.timesteps_in(SPLIT.style) == range(901)
    assert SCHEDULE.timesteps_in(SPLIT.content) == range(901, 1000)
    assert SPLIT.style.holds(SCHEDULE.log_snr[900])
    assert not SPLIT.content.holds(SCHEDULE.log_snr[900])
    assert SPLIT.content.holds(SCHEDULE.log_snr[901])
    assert not SPLIT.style.holds(SCHEDULE.log_snr[901])
    assert SPLIT.content.log_snr_max == SPLIT.style.log_snr_min == pytest.approx(-4.244, abs=5e-4)


@given(st.integers(0, 998))
def test_every_split_survives_json_and_names_its_timestep(t_prime: int) -> None:
    split = split_at(SCHEDULE, t_prime)
    edge = json.loads(json.dumps(split.style.log_snr_min))
    assert SCHEDULE.timesteps_in(Band(edge, None)) == range(t_prime + 1)
    assert SCHEDULE.timesteps_in(Band(None, edge)) == range(t_prime + 1, 1000)
    assert SCHEDULE.timestep_at(edge) == t_prime


@pytest.mark.parametrize("t_prime", [-1, 999, 1000])
def test_split_with_an_empty_side_is_refused(t_prime: int) -> None:
    with pytest.raises(TableRefused, match="between 0 and 998"):
        split_at(SCHEDULE, t_prime)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_agree_with_diffusers(name: str, zero_snr: bool) -> None:
    config = {**STABLE_DIFFUSION, "beta_schedule": name, "rescale_betas_zero_snr": zero_snr}
    theirs = DDIMScheduler.from_config(config).alphas_cumprod.tolist()
    assert NoiseSchedule.from_config(config).alphas_cumprod == pytest.approx(theirs, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 7, 10, 20, 50])
def test_inference_timesteps_agree_with_diffusers(spacing: str, steps: int) -> None:
    config = {**STABLE_DIFFUSION, "timestep_spacing": spacing}
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    assert NoiseSchedule.from_config(config).drawing_timesteps(steps) == scheduler.timesteps.tolist()


def test_few_inference_steps_fall_into_the_content_band() -> None:
    assert [inference_steps_in_band(SCHEDULE, steps, SPLIT.content) for steps in (5, 10, 20, 50)] == [0, 1, 2, 5]


def test_log_snr_falls_and_ends_at_minus_infinity_where_only_noise_is_left() -> None:
    assert all(later < earlier for earlier, later in zip(SCHEDULE.log_snr, SCHEDULE.log_snr[1:], strict=False))
    zero = NoiseSchedule.from_config({**STABLE_DIFFUSION, "rescale_betas_zero_snr": True})
    assert zero.log_snr[-1] == -math.inf
    assert zero.timesteps_in(split_at(zero, 900).content) == range(901, 1000)


def test_pure_noise_with_epsilon_prediction_is_refused() -> None:
    for ends in ({"rescale_betas_zero_snr": True}, {"trained_betas": [0.1, 0.5, 1.0]}):
        with pytest.raises(TableRefused, match="epsilon prediction; v_prediction and sample can"):
            NoiseSchedule.from_config({**STABLE_DIFFUSION, **ends, "prediction_type": "epsilon"})
        for other in ("v_prediction", "sample"):
            assert NoiseSchedule.from_config({**STABLE_DIFFUSION, **ends, "prediction_type": other}).ends_in_noise
    assert not NoiseSchedule.from_config({**STABLE_DIFFUSION, "trained_betas": [0.1, 0.5, 0.9]}).ends_in_noise


@pytest.mark.parametrize(
    "change", [{"beta_schedule": "sigmoid"}, {"prediction_type": "flow"}, {"timestep_spacing": "random"}]
)
def test_unknown_schedules_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(TableRefused, match="known are"):
        NoiseSchedule.from_config({**STABLE_DIFFUSION, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"beta_start": "a"},
        {"beta_end": 2},
        {"beta_start": 0},
        {"beta_end": math.nan},
        {"steps_offset": []},
        {"num_train_timesteps": 10**9},
        {"num_train_timesteps": math.inf},
        {"trained_betas": 7},
        {"trained_betas": [0.1]},
        {"trained_betas": [1.0, 0.5]},
        {"trained_betas": [0.1, None]},
    ],
)
def test_numbers_that_are_no_schedule_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(TableRefused, match="The scheduler"):
        NoiseSchedule.from_config({**STABLE_DIFFUSION, **change})


def test_table_with_a_gap_names_the_timesteps() -> None:
    gap = rows(split_at(SCHEDULE, 300).style, split_at(SCHEDULE, 900).content)
    assert table_problems(SCHEDULE, gap) == ["No source covers the timesteps 301 to 900."]
    with pytest.raises(TableRefused, match="301 to 900"):
        check_table(SCHEDULE, gap)


def test_empty_and_reversed_bands_and_bad_weights_are_named() -> None:
    table = rows(Band(), Band(500.0, None), Band(1.0, 0.0), Band(), weights=(1, 1, 1, 0))
    assert table_problems(SCHEDULE, table) == [
        "The band of “s1” holds no timestep of this schedule.",
        "The band of “s2” ends before it begins.",
        "The weight of “s3” must be a positive number.",
    ]


@pytest.mark.parametrize(
    ("changes", "papers", "suggested"),
    [
        ({}, 900, 900),
        ({"num_train_timesteps": 4000, "beta_start": 0.0002125, "beta_end": 0.003}, 3607, 3607),
        # They end before there is so much noise, or have more from the beginning.
        ({"beta_end": 0.002}, None, 998),
        ({"beta_start": 0.99, "beta_end": 0.999}, None, 0),
    ],
)
def test_the_papers_split_is_a_timestep_of_any_schedule(
    changes: dict[str, float], papers: int | None, suggested: int
) -> None:
    schedule = NoiseSchedule.from_config({**STABLE_DIFFUSION, **changes})
    assert (paper_t_prime(schedule), suggested_t_prime(schedule)) == (papers, suggested)
    assert schedule.split(suggested)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [850, 900, 950]),
        ({"num_train_timesteps": 100, "beta_start": 0.0085, "beta_end": 0.12}, [82, 87, 92]),
        ({"num_train_timesteps": 2000}, [1196, 1296, 1396]),
        ({"num_train_timesteps": 4}, [1, 2]),
    ],
)
def test_a_sweep_begins_around_the_papers_noise(changes: dict[str, float], expected: list[int]) -> None:
    schedule = NoiseSchedule.from_config({**STABLE_DIFFUSION, **changes})
    assert suggested_sweep(schedule) == expected
    assert all(schedule.split(t_prime) for t_prime in expected)


def test_edges_that_the_trainer_does_not_take_are_named() -> None:
    far = [Band(-5000.0, None), Band(None, 1000.1), Band(math.nan, None), Band(-LARGEST_EDGE, LARGEST_EDGE)]
    said = "has an edge at a log-SNR beyond ±1000: leave that side open."
    assert table_problems(SCHEDULE, rows(*far)) == [f"The band of “s{i}” {said}" for i in range(3)]


def test_shares_of_style_tailoring_are_its_timesteps() -> None:
    assert draw_shares(SCHEDULE, rows(SPLIT.content, SPLIT.style)) == pytest.approx([0.099, 0.901])
    # Where bands do not overlap, weights change nothing.
    assert draw_shares(SCHEDULE, rows(SPLIT.content, SPLIT.style, weights=(9, 1))) == pytest.approx([0.099, 0.901])


def test_shares_follow_weights_where_bands_overlap() -> None:
    assert draw_shares(SCHEDULE, rows(Band(), Band(), weights=(3, 1))) == pytest.approx([0.75, 0.25])
    assert draw_shares(SCHEDULE, rows(Band(), SPLIT.content)) == pytest.approx([0.901 + 0.0495, 0.0495])
    assert draw_shares(SCHEDULE, rows(SPLIT.content, SPLIT.style), "shares") == [0.5, 0.5]


def test_regions_are_cut_at_the_bands_and_always_show_the_noisy_end() -> None:
    split = [SCHEDULE.label(region) for region in report_regions(SCHEDULE, rows(SPLIT.content, SPLIT.style))]
    joint = [SCHEDULE.label(region) for region in report_regions(SCHEDULE, rows(Band(), Band()))]
    assert split == joint == ["0-900", "901-999"]


def test_band_is_described_in_timesteps() -> None:
    assert describe_band(SCHEDULE, SPLIT.content) == "t 901 to 999 (99 of 1000)"
    assert describe_band(SCHEDULE, Band(500.0, None)) == "no timestep"
