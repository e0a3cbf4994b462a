"""The objectives: golden losses of the noise, and preferences against the paper's formula."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from generation.engine.folders import hash_file
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_trainer import UNET, Killed, kill_at, lines
from training.engine.batches import Batch
from training.engine.draws import Draw
from training.engine.group import Group
from training.engine.objectives import example_errors, preference_errors
from training.engine.preparation import prepare
from training.engine.recipe import RunRefused, load_run
from training.engine.trainer import run_training


def make_batch(seed: int, count: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    noisy, target = torch.randn((2, count, 4, 8, 8), generator=generator)
    return Batch(noisy, target, torch.arange(count), torch.zeros(count, 2, 3), torch.ones(count))


@pytest.mark.parametrize(
    ("prediction_type", "golden"),
    [
        ("epsilon", [1.0582577, 1.2743078, 0.9567974, 1.29368, 1.2279642]),
        ("v_prediction", [1.0574931, 1.1464179, 1.1807129, 1.1125026, 1.14341]),
        ("sample", [1.1644957, 1.1937248, 1.2879224, 1.070942, 1.0779269]),
    ],
)
def test_losses_of_a_seeded_model_are_the_golden_ones(
    make_run: MakeRun, prediction_type: str, golden: list[float]
) -> None:
    folder = make_run(method="full")
    run = prepare(folder, load_run(folder / "run.json"), lambda: False, Group())
    object.__setattr__(run.diffusion, "prediction_type", prediction_type)
    draws = [Draw(t, source, 2, False, 1000 + t) for t, source in ((0, 1), (450, 1), (900, 1), (901, 0), (999, 0))]
    with torch.no_grad():
        errors, weights = example_errors(run.learner.network.eval(), draws, run.inputs)
    assert errors.tolist() == pytest.approx(golden, rel=1e-4)
    assert weights.tolist() == [1.0] * 5


def test_parent_itself_has_no_preference() -> None:
    denoiser = torch.nn.Conv2d(4, 4, 1)
    losses = preference_errors(
        lambda noisy, *_: denoiser(noisy), lambda noisy, *_: denoiser(noisy), make_batch(1), make_batch(2), 2000.0
    )
    assert losses.tolist() == pytest.approx([math.log(2)] * 3)


def test_loss_of_a_pair_is_that_of_the_paper() -> None:
    chosen, rejected, beta = make_batch(1), make_batch(2), 3.0
    losses = preference_errors(lambda noisy, *_: 0.5 * noisy, lambda noisy, *_: 0.2 * noisy, chosen, rejected, beta)
    for i in range(3):
        gains = []
        for side in (chosen, rejected):
            now, before = (((scale * side.noisy[i] - side.target[i]) ** 2).mean().item() for scale in (0.5, 0.2))
            gains.append(now - before)
        expected = -math.log(1 / (1 + math.exp(0.5 * beta * (gains[0] - gains[1]))))
        assert losses[i].item() == pytest.approx(expected, rel=1e-5)


def test_gradient_denoises_the_preferred_image_better_and_the_rejected_one_worse() -> None:
    scale = torch.tensor(0.0, requires_grad=True)
    chosen, rejected = make_batch(1), make_batch(2)
    # The preferred target is the noisy image itself, the rejected one its opposite: only a growing scale serves both.
    chosen = Batch(chosen.noisy, chosen.noisy, chosen.timesteps, chosen.text, chosen.weights)
    rejected = Batch(rejected.noisy, -rejected.noisy, rejected.timesteps, rejected.text, rejected.weights)
    preference_errors(
        lambda noisy, *_: scale * noisy, lambda noisy, *_: 0 * noisy, chosen, rejected, 1.0
    ).sum().backward()
    assert scale.grad is not None
    assert scale.grad < 0


def test_run_learns_the_preferences_and_begins_without_any(make_pair_run: MakeRun) -> None:
    folder = make_pair_run(steps=24, learning_rate=2e-4, dpo_beta=500.0, validate_every=24, sample_prompts=[])
    run_training(folder)
    first, last = (line for line in lines(folder / "events.jsonl") if line["kind"] == "validation")
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert last["loss"] < 0.6
    assert sum(line["preferred"] for line in lines(folder / "metrics.jsonl")[-8:]) / 8 > 0.7


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_low_rank_updates_are_compared_with_the_unet_without_them(make_pair_run: MakeRun, method: str) -> None:
    folder = make_pair_run(method=method, lora_rank=4, steps=3, validate_every=3, sample_prompts=[])
    run_training(folder)
    losses = [line["loss"] for line in lines(folder / "metrics.jsonl")]
    # Low-rank updates begin as nothing: the first step knows no preference, the next ones do.
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert all(abs(loss - math.log(2)) > 1e-3 for loss in losses[1:])


def test_killed_preference_run_resumes_to_the_same_bits(make_pair_run: MakeRun) -> None:
    whole, torn = make_pair_run("whole", sample_prompts=[]), make_pair_run("torn", sample_prompts=[])
    run_training(whole)
    with pytest.raises(Killed):
        run_training(torn, kill_at(torn, 3))
    run_training(torn)
    assert hash_file(torn / UNET) == hash_file(whole / UNET)


def test_held_out_pairs_share_no_image_with_those_that_are_trained_on(make_pair_run: MakeRun) -> None:
    folder = make_pair_run(holdout=0.34)
    run = prepare(folder, load_run(folder / "run.json"), lambda: False, Group())
    (trained,) = run.mixture.sizes
    sides = [
        {keys[0][i] for keys in (run.encoded.latent_keys, run.encoded.rejected_keys) for i in part}
        for part in (range(trained), range(trained, 6))
    ]
    assert 0 < trained < 6
    assert not sides[0] & sides[1]


def change_manifest(folder: Path, **changes: Any) -> None:
    manifest = Path(json.loads((folder / "run.json").read_text())["sources"][0]["manifest"])
    items = [{**json.loads(line), **changes} for line in manifest.read_text().splitlines()]
    manifest.write_text("\n".join(json.dumps(item) for item in items))


@pytest.mark.parametrize("changes", [{"rejected": None}, {"rejected_sha256": "abc"}])
def test_manifest_without_pairs_is_refused_for_preferences(make_pair_run: MakeRun, changes: dict[str, Any]) -> None:
    folder = make_pair_run()
    change_manifest(folder, **changes)
    with pytest.raises(RunRefused, match=r"Entry 1 of pairs\.jsonl is no pair"):
        run_training(folder)


def test_rejected_image_that_is_not_the_frozen_one_is_refused(make_pair_run: MakeRun) -> None:
    folder = make_pair_run()
    change_manifest(folder, rejected_sha256="0" * 64)
    with pytest.raises(RunRefused, match="is not the one that was frozen"):
        run_training(folder)


def test_images_that_were_rejected_are_ignored_by_the_loss_of_the_noise(make_pair_run: MakeRun) -> None:
    folder = make_pair_run(objective="denoise", steps=1, sample_prompts=[], validate_every=0)
    change_manifest(folder, rejected="nowhere.png")
    run_training(folder)
    assert (folder / "result.json").exists()


def test_min_snr_weights_are_refused_for_preferences(make_pair_run: MakeRun) -> None:
    with pytest.raises(RunRefused, match="Min-SNR weights are of the loss of the noise"):
        load_run(make_pair_run(min_snr_gamma=5.0) / "run.json")
