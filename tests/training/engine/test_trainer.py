"""A run from its folder to its result: what it writes, how it stops, resumes and refuses."""

import json
import math
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from generation.engine.draw import DrawRequest, draw
from generation.engine.folders import hash_file, hash_folder, inspect_folder
from generation.engine.pipeline import load_pipeline
from tests.training.engine.conftest import MakeRun
from tests.training.engine.faults import not_finite_from
from training.engine import objectives, observation, preparation, resuming, rollbacks, trainer
from training.engine.draws import Draw, Mixture
from training.engine.group import Group
from training.engine.manifests import Item
from training.engine.recipe import RunRefused, load_run
from training.engine.result import Diverged
from training.engine.run import Stopped
from training.engine.trainer import run_training

UNET = Path("result/unet/diffusion_pytorch_model.safetensors")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def stop_at(folder: Path, step: int) -> Any:
    """A stop request that comes true once `step` steps are recorded."""
    return lambda: (folder / "metrics.jsonl").exists() and len(lines(folder / "metrics.jsonl")) >= step


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs."""


def kill_at(folder: Path, step: int) -> Any:
    def stop() -> bool:
        if stop_at(folder, step)():
            raise Killed
        return False

    return stop


def test_run_writes_result_metrics_events_and_samples(make_run: MakeRun, parent: Path) -> None:
    folder = make_run()
    run_training(folder)

    metrics = lines(folder / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3, 4, 5, 6]
    assert set(metrics[0]["loss_by_source"]) <= {"content", "style"}
    assert set(metrics[0]["loss_by_band"]) <= {"0-900", "901-999"}
    assert all(line["loss"] > 0 and line["grad_norm"] > 0 and line["images_per_second"] > 0 for line in metrics)
    events = [(line["kind"], line["step"]) for line in lines(folder / "events.jsonl")]
    # A checkpoint is published while the run goes on: when, among what else happens, is left to the machine.
    assert [each for each in events if each[0] != "checkpoint"] == [
        ("started", 0),
        ("validation", 0),
        ("samples", 0),
        ("validation", 3),
        ("samples", 3),
        ("validation", 6),
        ("samples", 6),
        ("finished", 6),
    ]
    assert [each for each in events[:-1] if each[0] == "checkpoint"] == [("checkpoint", step) for step in (2, 4, 6)]
    result = json.loads((folder / "result.json").read_text())
    assert result["content_hash"] == hash_folder(folder / "result")[0]
    assert result["steps"] == 6
    assert result["final_loss"] == metrics[-1]["loss"]
    assert json.loads((folder / "progress.json").read_text())["phase"] == "done"
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-000004", "step-000006"]
    for step in (0, 3, 6):
        with Image.open(folder / f"samples/step-{step:06d}/00.png") as image:
            assert (image.mode, image.size) == ("RGBA", (32, 32))
    validation = next(line for line in lines(folder / "events.jsonl") if line["kind"] == "validation")
    assert {(cell["source"], cell["band"]) for cell in validation["cells"]} == {
        (source, band) for source in ("content", "style") for band in ("0-900", "901-999")
    }


@pytest.mark.parametrize("changes", [{}, {"min_snr_gamma": 5.0}])
def test_a_parent_that_ends_in_pure_noise_trains_and_draws(
    make_run: MakeRun, parent: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    ends = tmp_path / "ends"
    shutil.copytree(parent, ends)
    path = ends / "scheduler/scheduler_config.json"
    config = {**json.loads(path.read_text()), "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    path.write_text(json.dumps(config))
    folder = make_run(parent=str(ends), parent_hash=hash_folder(ends)[0], batch_size=16, **changes)
    run = preparation.prepare(folder, load_run(folder / "run.json"), lambda: False, Group())
    with torch.no_grad():
        errors, weights = objectives.example_errors(run.learner.network, [Draw(999, 0, 1, False, 5)], run.inputs)
    assert 0 < errors.item() < math.inf
    assert weights.tolist() == [0.0 if changes else 1.0]
    run_training(folder)
    metrics = lines(folder / "metrics.jsonl")
    assert all(0 < line["loss"] < math.inf and 0 < line["grad_norm"] < math.inf for line in metrics)
    # The paper's edge, which leaves more timesteps to content here.
    assert {"0-815", "816-999"} == set().union(*(line["loss_by_band"] for line in metrics))
    (*_, validation) = (line for line in lines(folder / "events.jsonl") if line["kind"] == "validation")
    assert all(0 < cell["mse"] < math.inf for cell in validation["cells"])
    with Image.open(folder / "samples/step-000006/00.png") as image:
        assert len(np.unique(np.asarray(image))) > 1


@pytest.mark.parametrize("asked", ["ddim", None])
def test_drawings_are_those_of_a_batch_by_the_same_scheduler_also_after_resuming(
    make_run: MakeRun, parent: Path, tmp_path: Path, asked: str | None
) -> None:
    own = tmp_path / "own"
    shutil.copytree(parent, own)
    for name, change in (
        ("scheduler/scheduler_config.json", {"_class_name": "PNDMScheduler", "skip_prk_steps": True}),
        ("model_index.json", {"scheduler": ["diffusers", "PNDMScheduler"]}),
    ):
        path = own / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    # A run from before it was said has no word of it, and goes on as it began.
    said = {"sample_scheduler": asked} if asked else {}
    folder = make_run(
        parent=str(own),
        parent_hash=hash_folder(own)[0],
        learning_rate=1e-9,
        steps=2,
        sample_every=2,
        sample_steps=5,
        **said,
    )
    with pytest.raises(Stopped):
        run_training(folder, stop_at(folder, 1))
    run_training(folder)
    drawn = {
        scheduler: draw(
            load_pipeline(own, "cpu"), [DrawRequest("a cat", seed=1, steps=5, guidance=4.0, scheduler=scheduler)]
        )[0].tobytes()
        for scheduler in ("ddim", "default")
    }
    assert drawn["ddim"] != drawn["default"]
    first, last = (Image.open(folder / f"samples/step-{step:06d}/00.png") for step in (0, 2))
    assert first.tobytes() == drawn[asked or "default"]
    # Next to nothing was learned: whatever differs more was drawn by another scheduler.
    assert np.abs(np.asarray(last).astype(int) - np.asarray(first)).max() <= 1


def test_result_differs_from_its_parent_in_the_unet_alone_and_loads_in_diffusers(
    make_run: MakeRun, parent: Path
) -> None:
    folder = make_run()
    run_training(folder)

    before, after = hash_folder(parent)[1], hash_folder(folder / "result")[1]
    assert set(before) == set(after)
    assert [name for name in before if before[name] != after[name]] == ["unet/diffusion_pytorch_model.safetensors"]
    assert inspect_folder(folder / "result").dtype == inspect_folder(parent).dtype == "float16"
    pipe = StableDiffusionPipeline.from_pretrained(folder / "result", local_files_only=True, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a cat", num_inference_steps=2, width=32, height=32).images[0]
    assert image.size == (32, 32)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema_decay": 0.9, "gradient_accumulation": 2, "schedule": "cosine", "warmup_steps": 2},
        {"method": "lora", "lora_rank": 2, "min_snr_gamma": 5.0},
        {"gradient_checkpointing": True},
        {"optimizer": "adafactor", "learning_rate": 1e-2, "ema_decay": 0.9},
        {"optimizer": "adamw8bit", "ema_decay": 0.9},
    ],
    ids=["full", "ema", "lora", "checkpointing", "adafactor", "8bit"],
)
def test_killed_run_resumes_to_the_same_bits(make_run: MakeRun, changes: dict[str, Any]) -> None:
    whole = make_run("whole", **changes)
    run_training(whole)
    torn = make_run("torn", **changes)
    kills = sorted(random.sample(range(1, 7), 2))
    for step in kills:
        with pytest.raises(Killed):
            run_training(torn, kill_at(torn, step))
    run_training(torn)

    assert hash_file(torn / UNET) == hash_file(whole / UNET), kills
    losses = [[line["loss"] for line in lines(run / "metrics.jsonl")] for run in (whole, torn)]
    assert losses[0] == losses[1]
    repeated = {"validation", "samples", "checkpoint"}
    happened = [
        [(e["kind"], e["step"]) for e in lines(run / "events.jsonl") if e["kind"] in repeated] for run in (whole, torn)
    ]
    assert sorted(happened[0]) == sorted(happened[1])


def test_stop_saves_the_step_and_resuming_repeats_none(make_run: MakeRun) -> None:
    folder = make_run(checkpoint_every=100)
    with pytest.raises(Stopped):
        run_training(folder, stop_at(folder, 3))

    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-000003"]
    assert lines(folder / "events.jsonl")[-1]["kind"] == "stopped"
    run_training(folder)
    assert [line["step"] for line in lines(folder / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    resumed = next(line for line in lines(folder / "events.jsonl") if line["kind"] == "resumed")
    assert (resumed["step"], resumed["exact"]) == (3, True)


def test_run_killed_before_its_first_checkpoint_says_that_it_restarts(make_run: MakeRun) -> None:
    folder = make_run(checkpoint_every=5)
    with pytest.raises(Killed):
        run_training(folder, kill_at(folder, 2))
    run_training(folder)

    assert [line["kind"] for line in lines(folder / "events.jsonl")].count("restarted") == 1
    assert [line["step"] for line in lines(folder / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_damaged_checkpoint_is_set_aside_and_the_one_before_it_continues(make_run: MakeRun) -> None:
    whole, folder = make_run("whole"), make_run("torn")
    run_training(whole)
    with pytest.raises(Killed):
        run_training(folder, kill_at(folder, 5))
    weights = folder / "checkpoints/step-000004/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    run_training(folder)

    assert [path.name for path in (folder / "quarantine").iterdir()] == ["step-000004"]
    assert next(line for line in lines(folder / "events.jsonl") if line["kind"] == "quarantined")["step"] == 2
    assert hash_file(folder / UNET) == hash_file(whole / UNET)


def test_run_whose_checkpoints_are_all_damaged_never_begins_again(make_run: MakeRun) -> None:
    folder = make_run()
    with pytest.raises(Killed):
        run_training(folder, kill_at(folder, 5))
    for path in (folder / "checkpoints").iterdir():
        (path / "state.json").unlink()
    for _ in range(2):
        with pytest.raises(RunRefused, match="none of them is whole"):
            run_training(folder)
    shutil.rmtree(folder / "quarantine")
    with pytest.raises(RunRefused, match="none of them is whole"):
        run_training(folder)


def test_checkpoint_of_other_settings_is_not_continued(make_run: MakeRun) -> None:
    folder = make_run()
    with pytest.raises(Stopped):
        run_training(folder, stop_at(folder, 3))
    settings = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**settings, "learning_rate": 1e-4}))
    with pytest.raises(RunRefused, match="changed since its checkpoint"):
        run_training(folder)


def test_finished_run_is_left_alone(make_run: MakeRun) -> None:
    folder = make_run()
    run_training(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    run_training(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_run_killed_while_publishing_ends_with_one_result(make_run: MakeRun) -> None:
    folder = make_run()
    run_training(folder)
    first = hash_file(folder / UNET)
    (folder / "result.json").unlink()
    run_training(folder)
    assert hash_file(folder / UNET) == first
    assert [line["kind"] for line in lines(folder / "events.jsonl")].count("finished") == 1


def test_lora_changes_only_the_attention_projections(make_run: MakeRun, parent: Path) -> None:
    folder = make_run(method="lora", lora_rank=2)
    run_training(folder)
    before = load_file(parent / "unet/diffusion_pytorch_model.safetensors")
    after = load_file(folder / UNET)
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".attn" in name and name.endswith("weight") for name in changed)


def test_losses_that_are_not_finite_end_the_run(make_run: MakeRun, tmp_path: Path, parent: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(parent, broken)
    weights = load_file(broken / "unet/diffusion_pytorch_model.safetensors")
    weights["conv_in.weight"][:] = float("nan")
    save_file(weights, broken / "unet/diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    folder = make_run(
        steps=20, parent=str(broken), parent_hash=hash_folder(broken)[0], sample_prompts=[], validate_every=1
    )
    with pytest.raises(Diverged):
        run_training(folder)
    metrics = lines(folder / "metrics.jsonl")
    assert {(line["loss"], line["skipped"]) for line in metrics} == {(None, True)}
    back = [line["rate"] for line in lines(folder / "events.jsonl") if line["kind"] == "rolled_back"]
    assert back == [5e-4, 2.5e-4]


def test_image_that_is_not_the_frozen_one_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "data/style-2.png")
    with pytest.raises(RunRefused, match=r"style-2\.png is not the one that was frozen"):
        run_training(folder)


def test_parent_that_is_not_the_named_one_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(RunRefused, match="parent"):
        run_training(make_run(parent_hash="0" * 64))


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"mixture": "shares", "importance_weights": True, "caption_dropout": 1.0},
        {"image_draws": "epochs", "gradient_accumulation": 2},
    ],
)
def test_other_precisions_and_mixtures_train(make_run: MakeRun, changes: dict[str, Any]) -> None:
    folder = make_run(sample_prompts=[], **changes)
    run_training(folder)
    assert [line["step"] for line in lines(folder / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert {tensor.dtype for tensor in load_file(folder / UNET).values()} == {torch.float16}


def test_training_lowers_the_validation_loss_of_both_bands(make_run: MakeRun) -> None:
    folder = make_run(steps=60, sample_prompts=[], checkpoint_every=60, validate_every=60, learning_rate=3e-3)
    run_training(folder)
    before, after = (line for line in lines(folder / "events.jsonl") if line["kind"] == "validation")
    assert after["loss"] < 0.9 * before["loss"]
    assert all(after["by_source"][name] < before["by_source"][name] for name in ("content", "style"))


def test_held_out_images_are_in_no_draw_and_alone_in_the_validation(make_run: MakeRun) -> None:
    folder = make_run(holdout=0.34, sample_prompts=[])
    seen: list[tuple[int, int]] = []
    original = Mixture.draw

    def watched(self: Mixture, step: int, slot: int) -> Draw:
        draw = original(self, step, slot)
        seen.append((draw.source, draw.image))
        return draw

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mixture, "draw", watched)
        run_training(folder)
    # One of five is held out, and two of six: they lie behind those that are trained on.
    assert {image for source, image in seen if source == 0} <= set(range(4))
    assert {image for source, image in seen if source == 1} <= set(range(4))
    cells = next(line for line in lines(folder / "events.jsonl") if line["kind"] == "validation")["cells"]
    assert all(cell["held_out"] for cell in cells)
    assert {(cell["source"], cell["points"]) for cell in cells} == {("content", 4), ("style", 8)}


def test_run_without_a_holdout_says_that_it_validates_on_training_images(make_run: MakeRun) -> None:
    folder = make_run(steps=1)
    run_training(folder)
    cells = next(line for line in lines(folder / "events.jsonl") if line["kind"] == "validation")["cells"]
    assert not any(cell["held_out"] for cell in cells)


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_low_rank_file_on_the_parent_draws_what_the_result_draws(make_run: MakeRun, parent: Path, method: str) -> None:
    folder = make_run(method=method, lora_rank=2, learning_rate=0.05, steps=8, ema_decay=0.5, sample_prompts=[])
    run_training(folder)

    def picture(model: Path, low_rank: Path | None = None) -> np.ndarray:
        pipe = StableDiffusionPipeline.from_pretrained(model, local_files_only=True, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        if low_rank:
            pipe.load_lora_weights(low_rank)
        generator = torch.Generator().manual_seed(1)
        return np.asarray(
            pipe("a cat", num_inference_steps=4, width=32, height=32, generator=generator).images[0]
        ).astype(int)

    before, merged = picture(parent), picture(folder / "result")
    loaded = picture(parent, folder / "result/lora")
    assert np.abs(before - merged).max() > 8
    # The result's weights are rounded to float16, the file's are not.
    assert np.abs(loaded - merged).max() <= 3
    names = load_file(folder / "result/lora/pytorch_lora_weights.safetensors")
    assert any("magnitude" in name for name in names) == (method == "dora")


def test_next_run_on_a_low_rank_result_carries_no_stale_file(make_run: MakeRun) -> None:
    first = make_run("first", method="lora", lora_rank=2, steps=1, sample_prompts=[])
    run_training(first)
    parent = first / "result"
    second = make_run("second", steps=1, sample_prompts=[], parent=str(parent), parent_hash=hash_folder(parent)[0])
    run_training(second)
    assert not (second / "result/lora").exists()


def test_losses_that_stay_infinite_take_the_run_back_to_its_checkpoint_with_half_the_rate(make_run: MakeRun) -> None:
    folder = make_run(steps=12, sample_prompts=[], validate_every=0)
    patch = not_finite_from(4, 6)
    try:
        run_training(folder)
    finally:
        patch.undo()
    events = lines(folder / "events.jsonl")
    (back,) = [line for line in events if line["kind"] == "rolled_back"]
    assert back["step"] == 10
    # The checkpoints of the steps that were skipped hold the weights of step 4.
    assert back["to"] == 8
    assert back["rate"] == pytest.approx(5e-4)
    metrics = lines(folder / "metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(1, 13))
    assert {line["lr"] for line in metrics[8:]} == {5e-4}
    assert (folder / "result.json").exists()


def test_checkpoint_that_leads_there_again_is_passed_over_for_the_one_before_it(make_run: MakeRun) -> None:
    def backs(folder: Path) -> list[tuple[int, int, float]]:
        told = [line for line in lines(folder / "events.jsonl") if line["kind"] == "rolled_back"]
        return [(line["step"], line["to"], line["rate"]) for line in told]

    changes = {"steps": 16, "sample_prompts": [], "validate_every": 0}
    whole, torn = make_run("whole", **changes), make_run("torn", **changes)
    patch = not_finite_from(4, 12)
    try:
        run_training(whole)
    finally:
        patch.undo()
    # Six steps after step 4, and six after going back: the checkpoints of steps 6 to 12 have the weights of step 4.
    assert backs(whole) == [(10, 8, 5e-4), (14, 2, 2.5e-4)]
    assert [line["step"] for line in lines(whole / "metrics.jsonl")] == list(range(1, 17))
    assert (whole / "result.json").exists()
    patch = not_finite_from(4, 12)
    try:
        with pytest.raises(Killed):
            run_training(torn, lambda: len(backs_of(torn)) == 2 and kill())
        assert [path.name for path in (torn / "checkpoints").iterdir()] == ["step-000002"]
        run_training(torn)
    finally:
        patch.undo()
    assert hash_file(torn / UNET) == hash_file(whole / UNET)


def backs_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / "events.jsonl"
    return [line for line in lines(path) if line["kind"] == "rolled_back"] if path.exists() else []


def kill() -> bool:
    raise Killed


def test_explosion_that_stays_finite_is_said_once_and_nothing_stops(make_run: MakeRun) -> None:
    folder = make_run(steps=34, batch_size=1, sample_prompts=[], validate_every=0, checkpoint_every=100)
    original = trainer.train_step

    def exploding(run: Any) -> dict[str, Any]:
        line = original(run)
        # From the first look at it on it is told; a resumed run knows what came before.
        return {**line, "grad_norm": 1.0 if line["step"] <= 24 else 500.0}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "train_step", exploding)
        with pytest.raises(Stopped):
            run_training(folder, stop_at(folder, 26))
        run_training(folder)
    (event,) = [line for line in lines(folder / "events.jsonl") if line["kind"] == "explosion"]
    assert (event["step"], event["figure"], event["times"]) == (29, "grad_norm", 500.0)
    assert (folder / "result.json").exists()


def test_run_that_goes_back_before_its_first_checkpoint_begins_with_the_parent(make_run: MakeRun) -> None:
    folder = make_run(steps=8, checkpoint_every=100, sample_prompts=[], validate_every=0)
    patch = not_finite_from(1, 6)
    try:
        run_training(folder)
    finally:
        patch.undo()
    (back,) = [line for line in lines(folder / "events.jsonl") if line["kind"] == "rolled_back"]
    assert back["to"] == 0
    assert [line["lr"] for line in lines(folder / "metrics.jsonl")] == [5e-4] * 8


def test_killed_run_remembers_that_it_went_back(make_run: MakeRun) -> None:
    def losses(folder: Path) -> list[float]:
        return [line["loss"] for line in lines(folder / "metrics.jsonl")]

    whole, torn = make_run("whole", steps=12, sample_prompts=[]), make_run("torn", steps=12, sample_prompts=[])
    patch = not_finite_from(4, 6)
    try:
        run_training(whole)
    finally:
        patch.undo()
    patch = not_finite_from(4, 6)
    try:
        with pytest.raises(Killed):
            run_training(torn, kill_at_once_after(torn, "rolled_back"))
        run_training(torn)
    finally:
        patch.undo()
    assert losses(whole) == losses(torn)
    assert hash_file(torn / UNET) == hash_file(whole / UNET)


def kill_at_once_after(folder: Path, kind: str) -> Any:
    def stop() -> bool:
        if (folder / "events.jsonl").exists() and any(e["kind"] == kind for e in lines(folder / "events.jsonl")):
            raise Killed
        return False

    return stop


def test_short_memory_halves_the_pass_and_not_the_step(make_run: MakeRun) -> None:
    roomy, narrow = make_run("roomy", sample_prompts=[]), make_run("narrow", sample_prompts=[])
    run_training(roomy)
    original = objectives.make_batch

    def starved(draws: Any, *rest: Any, **options: Any) -> Any:
        if options.get("sampled", True) and len(draws) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(draws, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "make_batch", starved)
        run_training(narrow)
    (event,) = [line for line in lines(narrow / "events.jsonl") if line["kind"] == "smaller_batch"]
    assert (event["step"], event["images"]) == (0, 2)
    one, other = (lines(run / "metrics.jsonl") for run in (roomy, narrow))
    assert [line["loss"] for line in one] == pytest.approx([line["loss"] for line in other], rel=1e-4)


def test_memory_that_is_short_for_one_image_is_said(make_run: MakeRun) -> None:
    folder = make_run(sample_prompts=[], validate_every=0)

    def starved(*rest: Any, **options: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "make_batch", starved)
        with pytest.raises(MemoryError):
            run_training(folder)


def test_noise_offset_moves_the_mean_of_the_noise_and_validation_stays_as_it_was(make_run: MakeRun) -> None:
    plain, offset = make_run("plain", sample_prompts=[]), make_run("offset", noise_offset=0.3, sample_prompts=[])
    run_training(plain)
    run_training(offset)
    first, second = (lines(run / "metrics.jsonl")[0]["loss"] for run in (plain, offset))
    assert first != second
    before, after = (
        next(line for line in lines(run / "events.jsonl") if line["kind"] == "validation")["loss"]
        for run in (plain, offset)
    )
    assert before == after


def test_settings_that_came_later_leave_older_checkpoints_valid(make_run: MakeRun) -> None:
    folder = make_run(steps=1)
    settings = load_run(folder / "run.json")
    items = [[Item(Path("x"), "a cat", "0" * 64)] for _ in settings.sources]
    assert resuming.digest_of(settings, items) == resuming.digest_of(replace(settings, noise_offset=0.0), items)
    assert resuming.digest_of(settings, items) != resuming.digest_of(replace(settings, noise_offset=0.1), items)


def test_loss_on_held_out_images_that_only_grows_is_said_once(make_run: MakeRun) -> None:
    folder = make_run(steps=12, validate_every=1, holdout=0.34, sample_prompts=[])
    grown = iter([1.0, 0.5, 0.52, 0.6, 0.7, 0.8, 0.9] + [1.0] * 10)

    def worse(*rest: Any, **options: Any) -> dict[str, Any]:
        value = next(grown)
        cell = {"source": "style", "band": "0-900", "mse": value, "share": 1.0, "points": 1, "held_out": True}
        return {"loss": value, "by_source": {}, "by_band": {}, "cells": [cell], "seconds": 0.0}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observation, "validate", worse)
        run_training(folder)
    (event,) = [line for line in lines(folder / "events.jsonl") if line["kind"] == "overfitting"]
    # 0.52 is within 5% of the best; the three after it are not.
    assert (event["step"], event["best_step"], event["best"]) == (5, 1, 0.5)


def test_drawings_of_one_prompt_that_became_alike_are_said(make_run: MakeRun) -> None:
    prompts = [{"prompt": f"a cat {i // 2}", "seed": i} for i in range(4)]
    folder = make_run(steps=6, sample_every=3, sample_prompts=prompts, validate_every=0)
    original, calls = observation.draw, [0]

    def flat(*rest: Any) -> list[Image.Image]:
        images = original(*rest)
        calls[0] += 1
        # One image for each prompt, whatever the seed: the prompts still differ.
        return images if calls[0] == 1 else [images[0], images[0], images[2], images[2]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observation, "draw", flat)
        run_training(folder)
    events = lines(folder / "events.jsonl")
    (event,) = [line for line in events if line["kind"] == "collapse"]
    assert (event["step"], event["share"], event["of"]) == (3, 0.0, "seeds")
    assert [line["seed_diversity"] for line in events if line["kind"] == "samples"][1:] == [0.0, 0.0]


def test_prompts_that_became_alike_are_no_collapse_while_their_seeds_differ(make_run: MakeRun) -> None:
    prompts = [{"prompt": f"a cat {i // 2}", "seed": i} for i in range(4)]
    folder = make_run(steps=3, sample_every=3, sample_prompts=prompts, validate_every=0)
    original, calls = observation.draw, [0]

    def same_for_all_prompts(*rest: Any) -> list[Image.Image]:
        images = original(*rest)
        calls[0] += 1
        greys = [100, 110, 200, 210] if calls[0] == 1 else [100, 110, 100, 110]
        return [Image.new("RGB", images[0].size, (grey, grey, grey)) for grey in greys]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observation, "draw", same_for_all_prompts)
        run_training(folder)
    events = lines(folder / "events.jsonl")
    assert not [line for line in events if line["kind"] == "collapse"]
    found = [line["seed_diversity"] for line in events if line["kind"] == "samples"]
    assert found == pytest.approx([10 / 255, 10 / 255])


def test_prompts_with_one_seed_each_say_nothing_of_a_collapse(make_run: MakeRun) -> None:
    prompts = [{"prompt": f"a cat {i}", "seed": i} for i in range(4)]
    folder = make_run(steps=3, sample_every=3, sample_prompts=prompts, validate_every=0)
    run_training(folder)
    events = lines(folder / "events.jsonl")
    assert [line["seed_diversity"] for line in events if line["kind"] == "samples"] == [None, None]


def test_tensorboard_reads_what_the_run_wrote_also_after_it_went_on(make_run: MakeRun) -> None:
    folder = make_run(steps=6, sample_every=3, validate_every=3)
    with pytest.raises(Killed):
        run_training(folder, kill_at(folder, 3))
    run_training(folder)
    read = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    read.Reload()
    losses = read.Scalars("train/loss")
    assert len(read.Scalars("train/images_per_second")) == 6
    assert [each.step for each in losses] == [1, 2, 3, 4, 5, 6]
    assert [each.value for each in losses] == pytest.approx([line["loss"] for line in lines(folder / "metrics.jsonl")])
    assert {each.step for each in read.Scalars("validation/loss")} == {0, 3, 6}
    assert {each.step for each in read.Images("samples/00")} == {0, 3, 6}


def test_run_needs_no_tensorboard(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    folder = make_run(steps=1)
    run_training(folder)
    assert (folder / "result.json").exists()
    assert not (folder / "tensorboard").exists()


def test_run_that_cannot_go_back_to_a_whole_checkpoint_is_refused(make_run: MakeRun) -> None:
    folder = make_run(steps=12, checkpoint_every=3, keep_checkpoints=1, sample_prompts=[], validate_every=0)
    patch = not_finite_from(3, 6)
    original = rollbacks.load_newest

    def damaged(folder: Path, *wanted: Any) -> Any:
        for path in folder.glob("checkpoints/step-*/weights.safetensors"):
            path.write_bytes(b"damaged")
        return original(folder, *wanted)

    patch.setattr(rollbacks, "load_newest", damaged)
    try:
        with pytest.raises(RunRefused, match="none of its checkpoints is whole"):
            run_training(folder)
    finally:
        patch.undo()
