"""Runs on images of several shapes: the same draws, the same weights, the same bits after a kill."""

import hashlib
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generation.engine.folders import hash_file, hash_folder
from tests.rgb_models import without_alpha
from tests.tiny_flux import build_tiny_flux
from tests.tiny_sd3 import build_tiny_sd3
from tests.tiny_sdxl import build_tiny_sdxl
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_trainer import UNET, Killed, kill_at, lines
from training.engine import encodings, kernels, objectives, steps
from training.engine.draws import Draw
from training.engine.group import Group
from training.engine.manifests import Item
from training.engine.pixels import read_image, to_pixels
from training.engine.preparation import prepare
from training.engine.recipe import RunRefused, load_run, parse_run
from training.engine.resuming import digest_of
from training.engine.run import Run, Stopped
from training.engine.shapes import Shape
from training.engine.trainer import run_training
from training.engine.validation import Passes, validate

# On a model that draws 32 px in steps of 8: two landscapes, two portraits, two squares.
SIZES = ((64, 36), (40, 24), (24, 40), (30, 50), (40, 40), (36, 33))
ASPECT = {"shapes": "aspect", "sample_prompts": []}


def write_images(folder: Path) -> list[dict[str, str]]:
    """An image of every size, with colours that change from left to right and from top to bottom, cut out by a hole."""
    items = []
    for number, (width, height) in enumerate(SIZES):
        across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
        alpha = np.full((height, width), 255)
        alpha[: height // 3] = 0
        pixels = np.stack([across, down, np.full((height, width), 40 * number), alpha], axis=2).astype(np.uint8)
        path = folder / f"{number}.png"
        Image.fromarray(pixels, "RGBA").save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        items.append({"image": path.name, "caption": f"a cat {number}", "sha256": digest})
    return items


@pytest.fixture
def make_shape_run(make_run: MakeRun, tmp_path: Path) -> MakeRun:
    """A run of one source over all noise, whose six images have three shapes; for "dpo" they are preferred over each other."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    items = write_images(folder)
    pairs = [
        {**item, "rejected": other["image"], "rejected_sha256": other["sha256"]}
        for item, other in zip(items, items[1:] + items[:1], strict=True)
    ]
    manifest = folder / "style.jsonl"
    manifest.write_text("\n".join(json.dumps(pair) for pair in pairs))

    def make(name: str = "run", **changes: Any) -> Path:
        sources = [{"name": "style", "manifest": str(manifest), "band": {}, "weight": 1.0}]
        return make_run(name, **{"sources": sources, **ASPECT, **changes})

    return make


def prepared(folder: Path, group: Group | None = None) -> Run:
    return prepare(folder, load_run(folder / "run.json"), lambda: False, group or Group())


def shapes_in(run: Run) -> list[str]:
    return [str(shape) for shape in run.encoded.shapes[0]]


def test_images_are_encoded_in_their_shapes_and_passes_have_one(
    make_shape_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[tuple[list[Draw], torch.Size]] = []
    original = objectives.make_batch

    def watched(draws: Any, *rest: Any, **options: Any) -> Any:
        batch = original(draws, *rest, **options)
        if options["sampled"]:
            passes.append((list(draws), batch.noisy.shape))
        return batch

    monkeypatch.setattr(objectives, "make_batch", watched)
    folder = make_shape_run(batch_size=4, gradient_accumulation=2)
    run_training(folder)
    run = prepared(folder)
    assert shapes_in(run) == ["40 × 24", "40 × 24", "24 × 40", "24 × 40", "32 × 32", "32 × 32"]
    assert {shape[2:] for _, shape in passes} == {(6, 10), (10, 6), (8, 8)}
    for draws, shape in passes:
        assert 1 <= len(draws) == shape[0] <= 4
        assert {run.encoded.shape_of(draw) for draw in draws} == {Shape(4 * shape[3], 4 * shape[2])}
    # What was learned from is what was drawn, no more and no less of any shape: the same as for squares.
    wanted = [run.mixture.draw(step, slot) for step in range(6) for slot in range(8)]
    assert Counter(draw for draws, _ in passes for draw in draws) == Counter(wanted)
    square = prepared(make_shape_run("square", batch_size=4, gradient_accumulation=2, shapes="square"))
    assert [square.mixture.draw(step, slot) for step in range(6) for slot in range(8)] == wanted
    assert set(shapes_in(square)) == {"32 × 32"}
    assert square.digest != run.digest


def test_every_source_and_shape_is_drawn_as_often_as_its_images(make_shape_run: MakeRun) -> None:
    run = prepared(make_shape_run())
    draws = [run.mixture.draw(i // 8, i % 8) for i in range(12_000)]
    counts = Counter(str(run.encoded.shape_of(draw)) for draw in draws)
    for share in (counts[shape] / len(draws) for shape in ("40 × 24", "24 × 40", "32 × 32")):
        # Four standard deviations of a binomial proportion.
        assert abs(share - 1 / 3) < 4 * (2 / 9 / len(draws)) ** 0.5


@pytest.mark.parametrize(
    "changes",
    [{"min_snr_gamma": 5.0}, {"objective": "dpo", "caption_dropout": 0.0}, {"objective": "alpha"}],
    ids=["denoise", "dpo", "alpha"],
)
def test_gradient_is_the_mean_over_examples_whatever_their_shapes(
    make_shape_run: MakeRun, parent: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    if changes.get("objective") == "alpha":
        rgb = without_alpha(parent, tmp_path / "rgb")
        changes = {**changes, "parent": str(rgb), "parent_hash": hash_folder(rgb)[0]}
    folder = make_shape_run(batch_size=3, gradient_accumulation=3, **changes)
    run = prepared(folder)
    draws = [run.mixture.draw(0, slot) for slot in range(9)]
    assert len({run.encoded.shape_of(draw) for draw in draws}) == 3
    wanted, alone = [], []
    for draw in draws:
        error, weight = steps.example_errors(run.learner.network, [draw], run.inputs)
        wanted.append(float(error.detach().sum()))
        alone.append(error.sum() * weight[0])
    mean = torch.stack(alone).mean()
    mean.backward()
    by_hand = gradients(run)

    errors, loss = steps.pass_through(run, draws)
    assert errors.sum(dim=1).tolist() == pytest.approx(wanted, rel=1e-4)
    assert float(loss) == pytest.approx(float(mean.detach()), rel=1e-5)
    ours = gradients(run)
    scale = max(float(each.abs().max()) for each in by_hand.values())
    for name, gradient in by_hand.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-5 * scale)

    # Two processes: the sum of their gradients is the same.
    parts = []
    for rank in range(2):
        run.group = Group(rank, 2)
        steps.pass_through(run, draws)
        parts.append(gradients(run))
    for name, gradient in by_hand.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], gradient, rtol=1e-3, atol=1e-5 * scale)


def gradients(run: Run) -> dict[str, torch.Tensor]:
    """The gradients, which begin at nothing again."""
    found = {name: each.grad.clone() for name, each in run.learner.parameters.items() if each.grad is not None}
    run.learner.optimizer.zero_grad(set_to_none=True)
    return found


def test_killed_run_resumes_to_the_same_bits(make_shape_run: MakeRun) -> None:
    changes = {"ema_decay": 0.9, "gradient_accumulation": 2, "never_enlarge": True, "greatest_aspect": 1.5}
    whole, torn = make_shape_run("whole", **changes), make_shape_run("torn", **changes)
    run_training(whole)
    for step in (1, 4):
        with pytest.raises(Killed):
            run_training(torn, kill_at(torn, step))
    run_training(torn)
    assert hash_file(torn / UNET) == hash_file(whole / UNET)
    losses = [[line["loss"] for line in lines(run / "metrics.jsonl")] for run in (whole, torn)]
    assert losses[0] == losses[1]


def test_killed_preference_run_has_pairs_of_one_shape_and_resumes_to_the_same_bits(make_shape_run: MakeRun) -> None:
    changes = {"objective": "dpo", "caption_dropout": 0.0, "method": "lora", "lora_rank": 2}
    whole, torn = make_shape_run("whole", **changes), make_shape_run("torn", **changes)
    run_training(whole)
    with pytest.raises(Killed):
        run_training(torn, kill_at(torn, 3))
    run_training(torn)
    assert hash_file(torn / UNET) == hash_file(whole / UNET)
    run = prepared(whole)
    # The second pair is a landscape over a portrait: their shape lies between.
    assert shapes_in(run)[:2] == ["40 × 24", "32 × 32"]
    for i, shape in enumerate(run.encoded.shapes[0]):
        for keys in (run.encoded.latent_keys, run.encoded.rejected_keys):
            assert run.encoded.latents[keys[0][i]].shape[2:] == (shape.height // 4, shape.width // 4)


def test_flow_in_shapes_trains_and_resumes_to_the_same_bits(make_shape_run: MakeRun, tmp_path: Path) -> None:
    parent = build_tiny_sd3(tmp_path / "flow", seed=5)
    changes = {"parent": str(parent), "parent_hash": hash_folder(parent)[0], "steps": 4, "greatest_aspect": 4.0}
    whole, torn = make_shape_run("whole", **changes), make_shape_run("torn", **changes)
    run_training(whole)
    with pytest.raises(Killed):
        run_training(torn, kill_at(torn, 3))
    run_training(torn)
    weights = Path("result/transformer/diffusion_pytorch_model.safetensors")
    assert hash_file(torn / weights) == hash_file(whole / weights)
    assert len(set(shapes_in(prepared(whole)))) == 3


def test_flux_packs_latents_of_every_shape(make_shape_run: MakeRun, tmp_path: Path) -> None:
    parent = build_tiny_flux(tmp_path / "flux", seed=5)
    changes = {"parent": str(parent), "parent_hash": hash_folder(parent)[0], "steps": 3, "greatest_aspect": 4.0}
    folder = make_shape_run(**changes, sample_prompts=[{"prompt": "a cat", "seed": 1}])
    run_training(folder)
    run = prepared(folder)
    assert len(set(shapes_in(run))) == 3
    # Two latents a side make one token of the transformer.
    assert {side % 2 for keys in run.encoded.latent_keys[0] for side in run.encoded.latents[keys].shape[2:]} == {0}
    assert all(math.isfinite(line["loss"]) for line in lines(folder / "metrics.jsonl"))


@pytest.mark.parametrize("objective", ["denoise", "dpo"])
def test_stable_diffusion_xl_is_told_the_shape_of_each_pass(
    make_shape_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    """As when it draws that size: height and width, no crop, height and width; of preferences both images alike."""
    told: list[tuple[list[list[float]], torch.Size]] = []
    original = objectives.make_batch

    def watched(*rest: Any, **options: Any) -> Any:
        batch = original(*rest, **options)
        told.append((batch.time_ids.tolist(), batch.noisy.shape))
        return batch

    monkeypatch.setattr(objectives, "make_batch", watched)
    parent = build_tiny_sdxl(tmp_path / "sdxl", seed=5)
    changes = {"parent": str(parent), "parent_hash": hash_folder(parent)[0], "steps": 3, "batch_size": 6}
    folder = make_shape_run(**changes, objective=objective, caption_dropout=0.0)
    run_training(folder)
    assert len({shape[2:] for _, shape in told}) > 1
    for ids, (count, _, height, width) in told:
        assert ids == [[2.0 * height, 2.0 * width, 0.0, 0.0, 2.0 * height, 2.0 * width]] * count


def test_short_memory_halves_passes_of_every_shape(make_shape_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    roomy, narrow = (make_shape_run(name, batch_size=8, steps=3) for name in ("roomy", "narrow"))
    run_training(roomy)
    original = objectives.make_batch

    def starved(draws: Any, *rest: Any, **options: Any) -> Any:
        if options["sampled"] and len(draws) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(draws, *rest, **options)

    monkeypatch.setattr(objectives, "make_batch", starved)
    run_training(narrow)
    events = [line["images"] for line in lines(narrow / "events.jsonl") if line["kind"] == "smaller_batch"]
    assert events == [4, 2, 1]
    losses = [[line["loss"] for line in lines(run / "metrics.jsonl")] for run in (roomy, narrow)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_validation_weighs_every_point_of_the_grid_alike(make_shape_run: MakeRun) -> None:
    run = prepared(make_shape_run())
    measured = validate(run.learner, run.grid, run.settings.sources, run.inputs, Passes())
    network = run.learner.network.eval()
    for cell, told in zip(run.grid, measured["cells"], strict=True):
        with torch.inference_mode():
            alone = [
                float(steps.example_errors(network, [draw], run.inputs, sampled=False)[0].sum()) for draw in cell.draws
            ]
        assert len({run.encoded.shape_of(draw) for draw in cell.draws}) == 3
        assert told["mse"] == pytest.approx(sum(alone) / len(alone), rel=1e-4)


def test_image_covers_its_shape_and_loses_the_same_on_both_sides(tmp_path: Path) -> None:
    # Columns of their own value each: 60 of them, of which a shape of 40 x 24 at the height of 24 keeps 40.
    columns = np.tile(np.arange(60, dtype=np.uint8), (24, 1))
    Image.fromarray(columns).convert("RGB").save(tmp_path / "a.png")
    item = Item(tmp_path / "a.png", "", hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest())
    pixels = to_pixels(read_image(item, Shape(40, 24)))
    assert pixels.shape == (3, 24, 40)
    assert ((pixels[0, 0] + 1) * 127.5).round().tolist() == list(range(10, 50))
    # A shape of another aspect is another entry of the cache, and the name of a square's changes with the preprocessing alone.
    keys = {
        encodings.latent_key(item.sha256, shape, "ef" * 32) for shape in (Shape(40, 24), Shape(24, 40), Shape(32, 32))
    }
    assert len(keys) == 3
    assert encodings.latent_key("ab" * 32, Shape(32, 32), "ef" * 32) == (
        "e92a1deac72807c08a835fabad1b413a1a20c91955bc54a1b751cd0058103e26"
    )


def test_shapes_leave_the_digest_of_older_runs_as_it_was() -> None:
    source = {"name": "style", "manifest": "style.jsonl"}
    settings = parse_run(
        {"parent": "models/a", "parent_hash": "0f" * 32, "cache_dir": "cache", "sources": [source], "steps": 20}
    )
    items = [[Item(Path("a.png"), "a cat", "ab" * 32), Item(Path("b.png"), "a dog", "cd" * 32)]]
    # As it was before there were shapes.
    assert digest_of(settings, items) == "f2ab2315cd63fcb0881259c279f8ed2195417d52a5fb5547b9f63fea81351146"
    digests = {
        digest_of(replace(settings, **changes), items)
        for changes in ({"shapes": "aspect"}, {"shapes": "aspect", "greatest_aspect": 3.0}, {"never_enlarge": True})
    }
    assert len(digests) == 3


@pytest.mark.parametrize("changes", [{"greatest_aspect": 3.0}, {"never_enlarge": True}])
def test_setting_of_shapes_is_refused_for_squares(make_shape_run: MakeRun, changes: dict[str, Any]) -> None:
    with pytest.raises(RunRefused, match="says something of the shapes “aspect” alone") as refused:
        load_run(make_shape_run(shapes="square", **changes) / "run.json")
    assert refused.value.field in changes


def test_checkpoint_of_squares_is_not_continued_in_shapes(make_shape_run: MakeRun) -> None:
    folder = make_shape_run(shapes="square")
    with pytest.raises(Stopped):
        run_training(folder, lambda: (folder / "checkpoints").exists())
    settings = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**settings, "shapes": "aspect"}))
    with pytest.raises(RunRefused, match="settings or images changed"):
        run_training(folder)


def test_compiling_is_for_squares(make_shape_run: MakeRun) -> None:
    """What was compiled for the first shape decides the next one's bits: a resumed run would begin with another."""
    with pytest.raises(RunRefused, match="compiled steps need squares"):
        load_run(make_shape_run("compiled", kernels="compiled") / "run.json")
    long = {"plain": 1e6}
    for shapes, is_tried in (("square", True), ("aspect", False)):
        run = prepared(make_shape_run(shapes, shapes=shapes, kernels="probe"))
        assert kernels._is_worth_trying(run, kernels.COMPILED, long) is is_tried
