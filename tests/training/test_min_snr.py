"""Which share of the loss's weight Min-SNR leaves each band, by the trainer's own weights."""

import pytest
import torch

from tests.training.factories import SCHEDULER_CONFIG
from training.engine.bands import Band, split_at
from training.engine.batches import Diffusion
from training.engine.flows import FlowSchedule
from training.engine.noise import NoiseSchedule
from training.engine.recipe import Source
from training.min_snr import say_weights, weigh_regions

FIVE = {"min_snr_gamma": 5.0}


def make_schedule(prediction: str = "v_prediction", **changed: object) -> NoiseSchedule:
    return NoiseSchedule.from_config({**SCHEDULER_CONFIG, "prediction_type": prediction, **changed})


def make_rows(schedule: NoiseSchedule, content: float = 1, style: float = 1) -> list[Source]:
    split = split_at(schedule)
    return [Source("content", "-", split.content, content), Source("style", "-", split.style, style)]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_weights_are_those_of_training(prediction: str) -> None:
    schedule = make_schedule(prediction)
    theirs = Diffusion.of(schedule, torch.device("cpu"), min_snr_gamma=5.0).loss_weights(torch.arange(1000))
    ours = torch.tensor([schedule.min_snr_weight(t, 5.0) for t in range(1000)])
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    # Shares of draws times weights, from the trainer's side.
    content, style = weigh_regions(schedule, make_rows(schedule), FIVE)
    assert content.weight == pytest.approx(float(theirs[901:].sum() / theirs.sum()), rel=1e-3)
    assert (content.draws, style.draws) == (pytest.approx(0.099), pytest.approx(0.901))
    assert content.weight + style.weight == pytest.approx(1)


def test_v_prediction_starves_the_content_band_and_epsilon_does_not() -> None:
    schedule = make_schedule()
    note, warning = say_weights(schedule, make_rows(schedule), FIVE)
    assert note == (
        "The loss’s weight under Min-SNR γ = 5 on a model that predicts v: “content” (t 901 to 999) 0.3% for 9.9% of the "
        "draws; “style” (t 0 to 900) 99.7% for 90.1% of the draws."
    )
    assert "takes nearly all weight off “content” (t 901 to 999)" in warning
    epsilon = make_schedule("epsilon")
    note, warning = say_weights(epsilon, make_rows(epsilon), FIVE)
    assert "predicts the noise: “content” (t 901 to 999) 10.8%" in note
    assert warning == ""


def test_fixed_shares_count_as_they_are_drawn_and_importance_weights_undo_them() -> None:
    schedule = make_schedule()
    rows = make_rows(schedule, content=3)
    content, _ = weigh_regions(schedule, rows, {**FIVE, "mixture": "shares"})
    assert content.draws == pytest.approx(0.75)
    natural, _ = weigh_regions(schedule, rows, FIVE)
    again, _ = weigh_regions(schedule, rows, {**FIVE, "mixture": "shares", "importance_weights": True})
    assert again == natural != content


def test_a_table_of_one_band_is_told_by_its_noisy_end() -> None:
    note, warning = say_weights(make_schedule(), [Source("style", "-")], FIVE)
    assert "predicts v: t 901 to 999 0.3% for 9.9% of the draws; t 0 to 900 99.7%" in note
    assert "off t 901 to 999" in warning


def test_a_band_that_is_hardly_drawn_is_not_held_against_min_snr() -> None:
    schedule = make_schedule("epsilon")
    split = split_at(schedule, 985)
    content, _ = weigh_regions(
        schedule, [Source("content", "-", split.content), Source("style", "-", split.style)], FIVE
    )
    assert content.weight < 0.05
    assert not content.is_starved


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"min_snr_gamma": None},
        {"min_snr_gamma": -1.0},
        {**FIVE, "objective": "dpo"},
        {**FIVE, "objective": "alpha"},
    ],
)
def test_nothing_is_said_without_min_snr(values: dict[str, object]) -> None:
    schedule = make_schedule()
    assert say_weights(schedule, make_rows(schedule), values) == ("", "")


def test_a_flow_and_a_schedule_that_ends_in_pure_noise_are_no_trouble() -> None:
    flow = FlowSchedule.from_config({"num_train_timesteps": 1000, "shift": 1.0})
    assert say_weights(flow, [Source("style", "-")], FIVE) == ("", "")
    ends = make_schedule(rescale_betas_zero_snr=True)
    assert "predicts v" in say_weights(ends, make_rows(ends), FIVE)[0]


@pytest.mark.parametrize("band", [Band(5.0, 5.0001), Band(15.0, 20.0)])
@pytest.mark.parametrize("mixture", ["shares", "natural"])
def test_nothing_is_said_of_a_table_that_cannot_be_trained(band: Band, mixture: str) -> None:
    schedule = make_schedule()
    rows = [Source("alone", "-", band)]
    assert not schedule.timesteps_in(band)
    assert say_weights(schedule, rows, {**FIVE, "mixture": mixture}) == ("", "")


def test_where_all_that_is_drawn_is_pure_noise_no_weight_is_left_to_share() -> None:
    ends = make_schedule(rescale_betas_zero_snr=True)
    last = Source("noise", "-", split_at(ends, 998).content)
    assert list(ends.timesteps_in(last.band)) == [999]
    assert weigh_regions(ends, [last], {**FIVE, "mixture": "shares"}) == []
