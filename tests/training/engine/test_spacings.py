"""The steps of every scheduler and spacing, against diffusers itself."""

import math
from typing import Any

import diffusers
import pytest

from generation.engine.draw import derive_scheduler
from generation.engine.families import DIFFUSION_SCHEDULERS
from generation.engine.requests import SCHEDULERS
from tests.training.engine.test_bands import STABLE_DIFFUSION
from training.engine.bands import Band, inference_steps_in_band
from training.engine.noise import SPACINGS, NoiseSchedule
from training.engine.spacings import DERIVED, KNOWN, Spacing

# diffusers hands torch tensors to numpy in a way that numpy 2 grumbles about; the values are right.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

SECOND_ORDER = ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler")
COUNTS = (1, 2, 3, 7, 10, 20, 28, 30, 50, 333, 999)


def theirs(scheduler: Any, count: int) -> list[float]:
    """The timesteps at which its steps begin, as floats."""
    scheduler.set_timesteps(count)
    if isinstance(scheduler, diffusers.PNDMScheduler):
        # What it is asked for; of the first ones it looks twice, or between them.
        return [float(t) for t in scheduler._timesteps[::-1]]
    timesteps = scheduler.timesteps[::2] if type(scheduler).__name__ in SECOND_ORDER else scheduler.timesteps
    return [float(t) for t in timesteps]


def test_all_schedulers_that_a_model_may_have_are_known() -> None:
    # LMS needs scipy even to be made, so that nothing here could tell whether its steps are right.
    assert set(KNOWN) == DIFFUSION_SCHEDULERS - {"LMSDiscreteScheduler"}
    assert set(DERIVED) == set(SCHEDULERS) - {"default"}


@pytest.mark.parametrize("spacing", [None, *SPACINGS])
@pytest.mark.parametrize("kind", KNOWN)
def test_steps_are_those_of_diffusers(kind: str, spacing: str | None) -> None:
    # Without this PNDM takes no fewer than four steps; Stable Diffusion's has it.
    config = {**STABLE_DIFFUSION, "skip_prk_steps": True, **({"timestep_spacing": spacing} if spacing else {})}
    for changes in ({"steps_offset": 0}, {"steps_offset": 1}, {"num_train_timesteps": 600}):
        scheduler = getattr(diffusers, kind).from_config({**config, **changes})
        ours = NoiseSchedule.from_config({**config, **changes, "_class_name": kind}).drawn_with("default")
        for count in COUNTS:
            if count < ours.num_timesteps:
                assert ours.drawing_timesteps(count) == pytest.approx(theirs(scheduler, count), abs=1e-3), (
                    count,
                    changes,
                )


LEVELS = ("use_karras_sigmas", "use_exponential_sigmas")
SPACES_NOISE = [kind for kind in KNOWN if kind not in ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler")]


@pytest.mark.parametrize("beta_schedule", ["scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("kind", SPACES_NOISE)
def test_steps_that_are_spaced_by_noise_are_those_of_diffusers(kind: str, levels: str, beta_schedule: str) -> None:
    config = {**STABLE_DIFFUSION, "beta_schedule": beta_schedule, levels: True}
    # What diffusers holds in 32 bits, logarithms of alphas among them, moves a step, and what it cuts off then is another one.
    tolerance = 1.0 if "Euler" not in kind and "Heun" not in kind else 0.1
    for changes in ({}, {"timestep_spacing": "trailing"}, {"sigma_min": 0.03, "sigma_max": 14.0}):
        scheduler = getattr(diffusers, kind).from_config({**config, **changes})
        ours = NoiseSchedule.from_config({**config, **changes, "_class_name": kind}).drawn_with("default")
        assert not ours.unknown_steps
        for count in (1, 2, 7, 20, 50):
            mine, their = ours.drawing_timesteps(count), theirs(scheduler, count)
            assert mine == pytest.approx(their, abs=tolerance), (count, changes)
            assert sum(abs(a - b) > 0.1 for a, b in zip(mine, their, strict=True)) <= 1 + count // 10, (count, changes)


@pytest.mark.parametrize("levels", LEVELS)
def test_a_step_that_is_spaced_by_noise_lies_in_the_band_of_its_noise(levels: str) -> None:
    config = {**STABLE_DIFFUSION, levels: True}
    schedule = NoiseSchedule.from_config(config).drawn_with("euler")
    scheduler = diffusers.EulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(9)
    for t, sigma in zip(schedule.drawing_timesteps(9), scheduler.sigmas[:-1].tolist(), strict=True):
        level = -2 * math.log(sigma)
        assert schedule.is_within(t, Band(level - 1e-3, level + 1e-3)), t
    content = Band(None, schedule.log_snr[900])
    scheduler.set_timesteps(20)
    their = sum(content.holds(-2 * math.log(sigma)) for sigma in scheduler.sigmas[:-1].tolist())
    assert inference_steps_in_band(schedule, 20, content) == their == (3 if levels == "use_karras_sigmas" else 2)


@pytest.mark.parametrize("spacing", [None, *SPACINGS])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_steps_are_those_of_the_schedulers_that_drawing_derives(name: str, spacing: str | None) -> None:
    config = {**STABLE_DIFFUSION, **({"timestep_spacing": spacing} if spacing else {})}
    ours = NoiseSchedule.from_config({**config, "_class_name": "PNDMScheduler"}).drawn_with(name)
    scheduler = derive_scheduler(diffusers.PNDMScheduler.from_config(config), name)
    assert ours.drawing_timesteps(20) == pytest.approx(theirs(scheduler, 20), abs=1e-3)


def test_the_pipeline_of_stable_diffusion_moves_leading_steps_by_one() -> None:
    config = {**STABLE_DIFFUSION, "steps_offset": 0}
    last = [
        NoiseSchedule.from_config(config, pipeline).drawing_timesteps(20)[-1]
        for pipeline in ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "")
    ]
    assert last == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"use_karras_sigmas": True, "use_exponential_sigmas": True}, {"ddim"}),
        ({"use_karras_sigmas": True, "use_flow_sigmas": True}, {"ddim"}),
        ({"use_beta_sigmas": True}, {"ddim"}),
        ({"use_karras_sigmas": True, "sigma_min": -1.0}, {"ddim"}),
        ({"use_exponential_sigmas": True, "sigma_max": math.inf}, {"ddim"}),
        ({"interpolation_type": "log_linear"}, {"ddim", "dpm++"}),
        ({"lambda_min_clipped": -5.1}, {"ddim", "euler", "default"}),
        ({"lambda_min_clipped": -math.inf}, {"ddim", "dpm++", "euler", "default"}),
    ],
)
def test_levels_that_are_no_spacing_of_timesteps_are_not_known(changes: dict[str, Any], known: set[str]) -> None:
    config = {**STABLE_DIFFUSION, "_class_name": "EulerDiscreteScheduler", **changes}
    schedules = {name: NoiseSchedule.from_config(config).drawn_with(name) for name in SCHEDULERS}
    assert {name for name, each in schedules.items() if not each.unknown_steps} == known
    for each in schedules.values():
        count = inference_steps_in_band(each, 20, Band())
        assert (count, len(each.drawing_timesteps(20))) == ((None, 0) if each.unknown_steps else (20, 20))
    assert "not known here" in Spacing.of({}, "SASolverScheduler").unknown


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("kind", SPACES_NOISE)
def test_noise_that_is_spaced_down_from_pure_noise(kind: str, levels: str) -> None:
    config = {**STABLE_DIFFUSION, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, levels: True}
    schedule = NoiseSchedule.from_config({**config, "_class_name": kind}).drawn_with("default")
    if kind == "EulerAncestralDiscreteScheduler":
        assert not schedule.spacing.levels
    elif kind in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"):
        their = theirs(getattr(diffusers, kind).from_config(config), 20)
        assert schedule.drawing_timesteps(20) == pytest.approx(their, abs=1.0)
    else:
        assert "rescale_betas_zero_snr" in schedule.unknown_steps


def test_a_step_between_two_timesteps_lies_where_its_noise_does() -> None:
    schedule = NoiseSchedule.from_config(STABLE_DIFFUSION).drawn_with("euler")
    edge = schedule.log_snr[900]
    content, style = Band(None, edge), Band(edge, None)
    inside = [(schedule.is_within(t, content), schedule.is_within(t, style)) for t in (900.0, 900.2, 900.9, 901.0)]
    assert inside == [(False, True), (True, False), (True, False), (True, False)]
    # Halfway between two timesteps diffusers takes the middle of their sigmas.
    scheduler = diffusers.EulerDiscreteScheduler.from_config(STABLE_DIFFUSION)
    scheduler.set_timesteps(3)
    (t, sigma) = float(scheduler.timesteps[1]), float(scheduler.sigmas[1])
    assert t == 499.5
    level = -2 * math.log(sigma)
    assert schedule.is_within(t, Band(level - 1e-4, level + 1e-4))
    # Twenty steps of Euler begin in pure noise, where DDIM's leave the first ones out.
    assert [inference_steps_in_band(schedule.drawn_with(name), 20, content) for name in ("ddim", "euler", "dpm++")] == [
        2,
        2,
        2,
    ]
