"""A run from its folder to its result: what it writes, how it stops, resumes and refuses."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from generation.engine.folders import hash_file, hash_folder, inspect_folder
from tests.training.engine.conftest import MakeRun
from training.engine.recipe import RunRefused
from training.engine.result import Diverged
from training.engine.trainer import Stopped, run_training

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
    assert events == [
        ("started", 0),
        ("validation", 0),
        ("samples", 0),
        ("checkpoint", 2),
        ("validation", 3),
        ("samples", 3),
        ("checkpoint", 4),
        ("checkpoint", 6),
        ("validation", 6),
        ("samples", 6),
        ("finished", 6),
    ]
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
    ],
    ids=["full", "ema", "lora"],
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
    assert [(line["loss"], line["skipped"]) for line in metrics] == [(None, True)] * 6


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
    "changes", [{"precision": "bf16"}, {"mixture": "shares", "importance_weights": True, "caption_dropout": 1.0}]
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
