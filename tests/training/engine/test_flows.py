"""Noise levels of flow-matching models: bands, densities cut to them, and steps, against diffusers and against the draws."""

import math
import random
from collections import Counter
from dataclasses import replace
from statistics import NormalDist

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift
from diffusers.training_utils import compute_loss_weighting_for_sd3

from tests.training.engine.test_bands import SCHEDULE, rows
from tests.training.engine.test_bands import SPLIT as PAPER_SPLIT
from training.engine.bands import (
    PAPER_EDGE,
    WORD,
    Band,
    Interval,
    TableRefused,
    describe_band,
    draw_shares,
    inference_steps_in_band,
    report_regions,
    split_at,
    table_problems,
)
from training.engine.batches import Flow
from training.engine.draws import Mixture
from training.engine.flows import FlowSchedule, log_snr_of
from training.engine.noise import NoiseSchedule
from training.engine.schedules import misplaced_setting, read_schedule

PLAIN = FlowSchedule()
SHIFTED = FlowSchedule(shift=3.0, drawing_shift=3.0)
UNIFORM = replace(PLAIN, sampling="uniform")
FEW = NoiseSchedule.from_config({"num_train_timesteps": 15})


def test_the_papers_split_is_sigma_0_893_on_a_flow() -> None:
    # Stable Diffusion's t = 900 has log-SNR -4.244; the same noise on a flow is sigma 0.893.
    assert PAPER_EDGE == PAPER_SPLIT.content.log_snr_max == pytest.approx(-4.244, abs=5e-4)
    assert SCHEDULE.log_snr[900] == pytest.approx(-4.244, abs=5e-4)
    content = PLAIN.timesteps_in(PAPER_SPLIT.content)
    assert content.start / 1000 == pytest.approx(0.893, abs=5e-4)
    assert content.stop == 1000.0
    assert log_snr_of(0.893) == pytest.approx(-4.244, abs=2e-3)
    assert PLAIN.timestep_at(PAPER_EDGE) == 893
    assert describe_band(PLAIN, PAPER_SPLIT.content) == "t 893 to 1000, σ 0.893 to 1"


def test_t_prime_itself_belongs_to_style() -> None:
    split = split_at(PLAIN, 900)
    content, style = PLAIN.timesteps_in(split.content), PLAIN.timesteps_in(split.style)
    assert (content.start, content.stop, style.start) == (style.stop, 1000.0, 0.0)
    assert (900.0 in style, 900.0 in content) == (True, False)
    assert (900.001 in style, 900.001 in content) == (False, True)
    assert 1000.0 in content
    assert PLAIN.timestep_at(split.content.log_snr_max or 0) == 900


@pytest.mark.parametrize("t_prime", [0, 1000, -5])
def test_split_that_leaves_a_band_empty_is_refused(t_prime: int) -> None:
    with pytest.raises(TableRefused, match="between 1 and 999"):
        split_at(PLAIN, t_prime)


@pytest.mark.parametrize(
    ("schedule", "share"),
    [
        # What lies above sigma 0.893: of a logit-normal density 1.7%, so that nobody would want to draw and then throw away.
        (PLAIN, 0.017),
        (SHIFTED, 0.153),
        (UNIFORM, 0.107),
    ],
    ids=["logit-normal", "shift 3", "uniform"],
)
def test_share_of_training_draws_in_the_content_band(schedule: FlowSchedule, share: float) -> None:
    content, style = draw_shares(schedule, rows(PAPER_SPLIT.content, PAPER_SPLIT.style))
    assert content == pytest.approx(share, abs=5e-4)
    assert content + style == pytest.approx(1)


def test_a_shift_moves_the_density_by_its_logarithm() -> None:
    moved = replace(PLAIN, mean=math.log(3.0))
    region = Interval(200.0, 700.0)
    assert SHIFTED.probability(region) == pytest.approx(moved.probability(region))
    assert SHIFTED.pick(WORD // 3, region) == pytest.approx(moved.pick(WORD // 3, region))


@pytest.mark.parametrize("steps", [1, 2, 10, 20, 28])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_drawing_timesteps_are_those_of_diffusers(steps: int, shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    ours = read_schedule(dict(scheduler.config) | {"_class_name": type(scheduler).__name__}).drawing_timesteps(steps)
    assert ours == pytest.approx(scheduler.timesteps.tolist(), rel=1e-5)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_shift_by_size_is_that_of_diffusers_and_training_goes_without(kind: str) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)
    scheduler.set_timesteps(12, mu=calculate_shift(1024, 256, 4096, 0.5, 1.15))
    config = dict(scheduler.config) | {"_class_name": type(scheduler).__name__}
    ours = FlowSchedule.from_config(config, image_tokens=1024)
    assert ours.drawing_timesteps(12) == pytest.approx(scheduler.timesteps.tolist(), rel=1e-5)
    assert ours.shift == 1.0


def test_steps_in_the_content_band_follow_the_shift() -> None:
    assert inference_steps_in_band(PLAIN, 28, PAPER_SPLIT.content) == 3
    assert inference_steps_in_band(SHIFTED, 28, PAPER_SPLIT.content) == 8
    # A narrow band of clean images between two steps is seen by none.
    assert inference_steps_in_band(PLAIN, 10, Band(log_snr_of(0.96), log_snr_of(0.94))) == 0
    with pytest.raises(TableRefused, match="between 1 and 1000"):
        inference_steps_in_band(PLAIN, 0, Band())


@pytest.mark.parametrize(
    "config",
    [{"shift": "big"}, {"shift": -1}, {"shift": math.nan}, {"num_train_timesteps": 1}, {"num_train_timesteps": []}],
)
def test_scheduler_config_with_something_else_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(TableRefused, match="scheduler"):
        FlowSchedule.from_config(config)


def test_gaps_and_empty_bands_are_said() -> None:
    assert table_problems(PLAIN, rows(PAPER_SPLIT.content, PAPER_SPLIT.style)) == []
    assert table_problems(PLAIN, rows(PAPER_SPLIT.content)) == ["No source covers the timesteps 0 to 893."]
    low, high = log_snr_of(0.7), log_snr_of(0.3)
    assert table_problems(PLAIN, rows(Band(high, None), Band(None, low))) == [
        "No source covers the timesteps 300 to 700."
    ]
    assert "ends before it begins" in table_problems(PLAIN, rows(Band(1.0, -1.0), Band()))[0]


def test_band_that_the_density_never_reaches_is_said() -> None:
    table = rows(PAPER_SPLIT.content, PAPER_SPLIT.style)
    narrow = PLAIN.sampled({"logit_std": 0.05})
    assert narrow.probability(narrow.timesteps_in(PAPER_SPLIT.content)) == 0.0
    (problem,) = table_problems(narrow, table)
    assert problem.startswith(f"The band of “{table[0].name}” is never drawn")
    with pytest.raises(TableRefused, match="never drawn"):
        Mixture(narrow, tuple(table), (5, 5), seed=1, mode="shares", importance_weights=True)
    # Of what is drawn rarely, shares and weights are still numbers.
    rare = PLAIN.sampled({"logit_std": 0.06})
    assert table_problems(rare, table) == []
    assert Mixture(rare, tuple(table), (5, 5), seed=1, mode="shares", importance_weights=True).draw(0, 0).weight >= 0


def test_regions_are_cut_at_the_papers_noise_where_no_band_cuts() -> None:
    names = [PLAIN.label(region) for region in report_regions(PLAIN, rows(Band(), Band()))]
    assert names == ["0-893", "893-1000"]
    split = split_at(PLAIN, 900)
    assert [PLAIN.label(region) for region in report_regions(PLAIN, rows(split.content, split.style))] == [
        "0-900",
        "900-1000",
    ]


def truncated(schedule: FlowSchedule, band: Interval, sigmas: list[float]) -> list[float]:
    """The distribution function of the truncated density at some noise levels, from its definition."""

    def below(sigma: float) -> float:
        sigma = min(max(sigma, 1e-300), 1 - 1e-16)
        if schedule.sampling == "uniform":
            return sigma / (sigma + schedule.shift * (1 - sigma))
        logit = math.log(sigma) - math.log1p(-sigma)
        return NormalDist(schedule.mean + math.log(schedule.shift), schedule.std).cdf(logit)

    low, high = below(band.start / 1000), below(band.stop / 1000)
    return [(below(sigma) - low) / (high - low) for sigma in sigmas]


def distance_from_uniform(values: list[float]) -> float:
    """The statistic of Kolmogorov and Smirnov against the uniform distribution on 0..1."""
    count = len(values)
    return max(max((i + 1) / count - value, value - i / count) for i, value in enumerate(sorted(values)))


@pytest.mark.parametrize(
    "schedule",
    [PLAIN, SHIFTED, UNIFORM, replace(SHIFTED, sampling="uniform"), replace(PLAIN, mean=-0.7, std=0.4)],
    ids=["plain", "shifted", "uniform", "uniform shifted", "narrow"],
)
@pytest.mark.parametrize("mode", ["natural", "shares"])
def test_draws_within_a_band_follow_its_truncated_density(schedule: FlowSchedule, mode: str) -> None:
    split = split_at(schedule, 600)
    mixture = Mixture(schedule, tuple(rows(split.content, split.style)), (3, 3), seed=11, mode=mode)
    draws = [mixture.draw(step, slot) for step in range(250) for slot in range(16)]
    for source, band in enumerate(mixture.bands):
        sigmas = [draw.timestep / 1000 for draw in draws if draw.source == source]
        assert all(1000 * sigma in band for sigma in sigmas)
        if len(sigmas) > 20:
            # Kolmogorov's bound at a level of 0.001; the seed is fixed.
            assert distance_from_uniform(truncated(schedule, band, sigmas)) < 1.95 / len(sigmas) ** 0.5, source


def test_density_and_its_inverse_agree_in_the_far_tails() -> None:
    for schedule in (PLAIN, replace(PLAIN, mean=-3.0, std=0.3), replace(SHIFTED, sampling="uniform")):
        band = Interval(993.0, 1000.0)
        for share in (0.001, 0.5, 0.999):
            timestep = schedule.pick(int(share * WORD), band)
            assert timestep in band
            below = schedule.probability(Interval(band.start, timestep)) / schedule.probability(band)
            assert below == pytest.approx(share, abs=1e-6)


def test_draws_never_leave_their_band_whatever_the_word() -> None:
    generator = random.Random(3)
    words = [0, 1, WORD - 1, WORD - 2, *(generator.randrange(WORD) for _ in range(200))]
    for schedule in (PLAIN, SHIFTED, UNIFORM, replace(PLAIN, mean=8.0, std=0.05), replace(PLAIN, mean=-8.0, std=0.05)):
        for region in (schedule.axis, Interval(0.0, 893.0), Interval(893.0, 1000.0), Interval(500.0, 500.001)):
            assert all(schedule.pick(word, region) in region for word in words)


@pytest.mark.parametrize("mode", ["natural", "shares"])
@pytest.mark.parametrize(
    "bands",
    [(PAPER_SPLIT.content, PAPER_SPLIT.style), (Band(), Band()), (Band(), PAPER_SPLIT.content)],
    ids=["tailoring", "joint", "overlap"],
)
def test_draws_match_their_expected_shares(mode: str, bands: tuple[Band, Band]) -> None:
    mixture = Mixture(SHIFTED, tuple(rows(*bands, weights=(3, 1))), (4, 4), seed=5, mode=mode)
    draws = [mixture.draw(step, slot) for step in range(500) for slot in range(16)]
    counts = Counter(draw.source for draw in draws)
    for source, share in enumerate(mixture.shares()):
        # Four standard deviations of a binomial proportion.
        assert abs(counts[source] / len(draws) - share) < 4 * (share * (1 - share) / len(draws)) ** 0.5


def test_importance_weights_restore_the_natural_expectation() -> None:
    bands = (Band(), PAPER_SPLIT.content)
    natural = Mixture(SHIFTED, tuple(rows(*bands)), (4, 4), seed=5)
    mixture = replace(natural, mode="shares", importance_weights=True)
    draws = [mixture.draw(step, slot) for step in range(1000) for slot in range(16)]
    for source, share in enumerate(natural.shares()):
        weighed = sum(draw.weight for draw in draws if draw.source == source) / len(draws)
        assert weighed == pytest.approx(share, rel=0.05)


def test_loss_weights_are_those_of_diffusers() -> None:
    sigmas = torch.tensor([0.002, 0.3, 0.893, 1.0])
    for weighting in ("none", "sigma_sqrt", "cosmap"):
        flow = Flow(1000, torch.device("cpu"), weighting)
        theirs = compute_loss_weighting_for_sd3(weighting, sigmas)
        torch.testing.assert_close(flow.loss_weights(1000 * sigmas), theirs, rtol=1e-5, atol=1e-5)
    assert Flow(1000, torch.device("cpu"), "sigma_sqrt").loss_weights(torch.tensor([0.001])).item() == pytest.approx(
        1e6
    )


def test_noise_and_target_are_those_of_diffusers() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    clean, noise = torch.randn((2, 3, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    timesteps = scheduler.timesteps[[0, 107, 900]]
    flow = Flow(1000, torch.device("cpu"))
    torch.testing.assert_close(flow.add_noise(clean, noise, timesteps), scheduler.scale_noise(clean, timesteps, noise))
    torch.testing.assert_close(flow.target(clean, noise, timesteps), noise - clean)


@pytest.mark.parametrize(
    ("schedule", "values", "field"),
    [
        (PLAIN, {"min_snr_gamma": 5.0}, "min_snr_gamma"),
        (PLAIN, {"noise_offset": 0.1}, "noise_offset"),
        (PLAIN, {"objective": "dpo"}, ""),
        (PLAIN, {"sample_scheduler": "ddim"}, "sample_scheduler"),
        (PLAIN, {"sample_scheduler": "default"}, ""),
        (SCHEDULE, {"sample_scheduler": "ddim"}, ""),
        (PLAIN, {"logit_mean": 1.0, "noise_offset": 0.0, "objective": "denoise"}, ""),
        (SCHEDULE, {"logit_mean": 1.0}, "logit_mean"),
        (SCHEDULE, {"flow_weighting": "cosmap"}, "flow_weighting"),
        (SCHEDULE, {"min_snr_gamma": 5.0, "logit_std": 1.0}, ""),
        (FEW, {}, "sample_steps"),
        (FEW, {"sample_steps": 16}, "sample_steps"),
        (FEW, {"sample_steps": 15}, ""),
        (FEW, {"sample_every": 0}, ""),
        (FEW, {"sample_prompts": []}, ""),
        (replace(PLAIN, num_timesteps=15), {"sample_steps": 16}, ""),
    ],
)
def test_settings_of_the_other_kind_of_model_are_named(schedule: object, values: dict[str, object], field: str) -> None:
    found, sentence = misplaced_setting(values, schedule)  # type: ignore[arg-type]
    assert found == field
    assert bool(sentence) == bool(field)
