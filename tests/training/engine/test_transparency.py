"""The transparency decoder: how it begins, what it learns, what it leaves alone, and that it resumes to the same bits."""

import hashlib
import json
import math
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from generation.engine.folders import hash_file, hash_folder, inspect_folder
from tests.rgb_models import without_alpha
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_process import WarmGroup, error_of, finish, start_warm, trained, wait_until
from tests.training.engine.test_trainer import Killed, kill_at, lines, stop_at
from training.engine import steps
from training.engine.__main__ import REFUSED
from training.engine.group import Group
from training.engine.preparation import prepare
from training.engine.recipe import RunRefused, load_run
from training.engine.run import Stopped
from training.engine.trainer import run_training
from training.engine.transparency import alpha_overlap, grow_alpha, psnr_on_white, rgba_errors

VAE = Path("result/vae/diffusion_pytorch_model.safetensors")


def draw_disc(path: Path, number: int) -> None:
    """A disc of its own colour, place and size on nothing, or a square for every third."""
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    place = random.Random(number)
    radius, x, y = place.randint(6, 11), place.randint(11, 20), place.randint(11, 20)
    colour = (place.randint(0, 160), place.randint(0, 160), place.randint(0, 160), 255)
    shape = ImageDraw.Draw(image)
    (shape.rectangle if number % 3 == 0 else shape.ellipse)((x - radius, y - radius, x + radius, y + radius), colour)
    image.save(path)


def write_discs(folder: Path, name: str, count: int) -> str:
    entries = []
    for number in range(count):
        path = folder / f"{name}-{number}.png"
        draw_disc(path, number)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        entries.append(json.dumps({"image": path.name, "caption": f"a {name} {number}", "sha256": digest}))
    manifest = folder / f"{name}.jsonl"
    manifest.write_text("\n".join(entries))
    return str(manifest)


@pytest.fixture(scope="session")
def rgb_parent(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny parent with a decoder that knows no alpha."""
    return without_alpha(parent, tmp_path_factory.mktemp("rgb") / "model")


def decoder_runs(make_run: MakeRun, parent: Path, folder: Path) -> MakeRun:
    """Runs that teach transparency to the decoder of a parent, by discs."""
    data = folder / "discs"
    data.mkdir()
    source = {"name": "discs", "manifest": write_discs(data, "disc", 20), "band": {}, "weight": 1.0}
    parent_hash, _ = hash_folder(parent)

    def make(name: str = "run", **changes: Any) -> Path:
        values = {"objective": "alpha", "parent": str(parent), "parent_hash": parent_hash, "sources": [source]}
        return make_run(name, **{**values, "holdout": 0.2, **changes})

    return make


@pytest.fixture
def make_alpha_run(make_run: MakeRun, rgb_parent: Path, tmp_path: Path) -> MakeRun:
    return decoder_runs(make_run, rgb_parent, tmp_path)


def test_grown_decoder_says_the_same_colours_and_their_mean_as_alpha(rgb_parent: Path) -> None:
    vae = AutoencoderKL.from_pretrained(rgb_parent / "vae", dtype=torch.float32).eval()
    latents = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = vae.decode(latents).sample
        grow_alpha(vae)
        after = vae.decode(latents).sample
        grow_alpha(vae)  # A decoder of four channels stays what it is.
        again = vae.decode(latents).sample
    assert after.shape == (2, 4, 32, 32)
    torch.testing.assert_close(after[:, :3], before, rtol=0, atol=1e-6)
    torch.testing.assert_close(after[:, 3], before.mean(dim=1), rtol=0, atol=1e-5)
    assert torch.equal(again, after)
    assert vae.config.out_channels == 4


def test_result_is_the_parent_with_another_decoder_and_draws_rgba_in_plain_diffusers(
    make_alpha_run: MakeRun, rgb_parent: Path
) -> None:
    folder = make_alpha_run()
    run_training(folder)

    before, after = hash_folder(rgb_parent)[1], hash_folder(folder / "result")[1]
    assert set(before) == set(after)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"}
    assert not inspect_folder(rgb_parent).has_alpha
    assert inspect_folder(folder / "result").has_alpha
    old, new = load_file(rgb_parent / VAE.relative_to("result")), load_file(folder / VAE)
    assert {name: each.dtype for name, each in old.items()} == {name: each.dtype for name, each in new.items()}
    frozen = [name for name in old if name.startswith(("encoder.", "quant_conv."))]
    assert frozen
    assert all(torch.equal(old[name], new[name]) for name in frozen)
    # Every layer of the decoder learned, but for biases in front of a norm, whose gradient is zero.
    same = [name for name in old if name not in frozen and new[name].shape == old[name].shape]
    assert sum(not torch.equal(old[name], new[name]) for name in same) > 0.9 * len(same)
    assert new["decoder.conv_out.weight"].shape[0] == 4

    pipe = StableDiffusionPipeline.from_pretrained(folder / "result", local_files_only=True, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a cat", num_inference_steps=2, width=32, height=32).images[0]
    assert (image.mode, image.size) == ("RGBA", (32, 32))


def test_run_tells_losses_by_part_and_figures_of_held_out_images(make_alpha_run: MakeRun) -> None:
    folder = make_alpha_run()
    run_training(folder)

    metrics = lines(folder / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3, 4, 5, 6]
    for line in metrics:
        assert set(line["loss_by_part"]) == {"colour", "alpha"}
        assert sum(line["loss_by_part"].values()) == pytest.approx(line["loss"], rel=1e-5)
        assert "loss_by_band" not in line
    validations = [line for line in lines(folder / "events.jsonl") if line["kind"] == "validation"]
    assert [line["step"] for line in validations] == [0, 3, 6]
    for line in validations:
        assert 0 <= line["alpha_iou"] <= 1
        assert 0 < line["psnr_on_white"] < 100
        assert [(cell["points"], cell["held_out"]) for cell in line["cells"]] == [(4, True)]
    for step in (0, 3, 6):
        with Image.open(folder / f"samples/step-{step:06d}/00.png") as image:
            assert (image.mode, image.size) == ("RGBA", (32, 32))


def test_shapes_are_learned(make_alpha_run: MakeRun) -> None:
    folder = make_alpha_run(
        steps=60, batch_size=8, learning_rate=4e-3, validate_every=60, sample_every=0, checkpoint_every=60
    )
    run_training(folder)
    first, last = (line for line in lines(folder / "events.jsonl") if line["kind"] == "validation")
    assert last["alpha_iou"] > first["alpha_iou"] + 0.2
    assert last["psnr_on_white"] > first["psnr_on_white"] + 1
    assert last["loss"] < 0.7 * first["loss"]


@pytest.mark.parametrize(
    "changes",
    [{}, {"ema_decay": 0.9, "gradient_accumulation": 2, "schedule": "cosine"}, {"gradient_checkpointing": True}],
    ids=["plain", "ema", "checkpointing"],
)
def test_killed_run_resumes_to_the_same_bits(make_alpha_run: MakeRun, changes: dict[str, Any]) -> None:
    whole, torn = (make_alpha_run(name, sample_every=6, **changes) for name in ("whole", "torn"))
    run_training(whole)
    kills = sorted(random.sample(range(1, 7), 2))
    for step in kills:
        with pytest.raises(Killed):
            run_training(torn, kill_at(torn, step))
    run_training(torn)
    assert hash_file(torn / VAE) == hash_file(whole / VAE), kills
    losses = [[line["loss"] for line in lines(run / "metrics.jsonl")] for run in (whole, torn)]
    assert losses[0] == losses[1]


@pytest.mark.processes
def test_run_killed_by_the_system_resumes_to_the_same_bits(make_alpha_run: MakeRun) -> None:
    whole, torn = (
        make_alpha_run(name, steps=40, checkpoint_every=7, sample_every=0, validate_every=20)
        for name in ("whole", "torn")
    )
    assert finish(start_warm(whole)) == 0
    child = start_warm(torn)
    wait_until(trained(torn, 11))
    child.kill()
    assert finish(child) == -signal.SIGKILL
    assert finish(start_warm(torn)) == 0
    assert hash_file(torn / VAE) == hash_file(whole / VAE)
    assert [line["step"] for line in lines(torn / "metrics.jsonl")] == list(range(1, 41))


def test_image_that_vanishes_ends_the_run_when_it_is_read_and_loses_no_step(
    make_alpha_run: MakeRun, tmp_path: Path
) -> None:
    changes = {"steps": 6, "batch_size": 1, "gradient_accumulation": 2, "checkpoint_every": 6, "validate_every": 0}
    whole, run = make_alpha_run("whole", sample_every=0, **changes), make_alpha_run("run", sample_every=0, **changes)
    run_training(whole)
    prepared = prepare(run, load_run(run / "run.json"), lambda: False, Group())
    first: dict[int, tuple[int, int]] = {}
    for step in range(6):
        for slot in range(2):
            first.setdefault(prepared.mixture.draw(step, slot).image, (step, slot))
    # The second of its step, so that the first has added to the gradients already.
    image, (step, _) = max((each for each in first.items() if each[1][1] == 1), key=lambda each: each[1])
    assert step > 0
    path = prepared.items[0][image].image
    trained = steps.pass_through

    def vanishing(run: Any, draws: Any) -> Any:
        if run.learner.step == step and path.exists():
            path.rename(tmp_path / "aside")
        return trained(run, draws)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "pass_through", vanishing)
        with pytest.raises(RunRefused, match="cannot be read"):
            run_training(run)
    assert len(lines(run / "metrics.jsonl")) == step
    assert [each.name for each in (run / "checkpoints").iterdir()] == [f"step-{step:06d}"]
    (tmp_path / "aside").rename(path)
    run_training(run)
    assert [line["step"] for line in lines(run / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert hash_file(run / VAE) == hash_file(whole / VAE)


@pytest.mark.parametrize("processes", [1, 2])
def test_image_that_vanishes_before_a_validation_ends_the_run_and_loses_no_step(
    make_alpha_run: MakeRun, tmp_path: Path, processes: int
) -> None:
    changes = {"steps": 40, "batch_size": 2, "checkpoint_every": 40, "validate_every": 20, "sample_every": 0}
    run = make_alpha_run("run", **changes)
    prepared = prepare(run, load_run(run / "run.json"), lambda: False, Group())
    draw = prepared.grid[0].draws[0]
    path = prepared.items[draw.source][draw.image].image
    group = WarmGroup(run, processes)
    wait_until(trained(run, 2))
    path.rename(tmp_path / "aside")
    assert group.wait(120) == REFUSED
    assert "cannot be read" in error_of(run)["sentence"]
    assert [each.name for each in (run / "checkpoints").iterdir()] == ["step-000020"]
    (tmp_path / "aside").rename(path)
    assert WarmGroup(run, processes).wait(120) == 0
    assert [line["step"] for line in lines(run / "metrics.jsonl")] == list(range(1, 41))
    assert [line["step"] for line in lines(run / "events.jsonl") if line["kind"] == "validation"] == [0, 20, 40]


def test_decoder_of_four_channels_is_finetuned_and_stops_on_request(make_alpha_run: MakeRun, parent: Path) -> None:
    folder = make_alpha_run(
        parent=str(parent), parent_hash=hash_folder(parent)[0], checkpoint_every=100, sample_every=0
    )
    with pytest.raises(Stopped):
        run_training(folder, stop_at(folder, 2))
    run_training(folder)
    before, after = hash_folder(parent)[1], hash_folder(folder / "result")[1]
    assert [name for name in before if before[name] != after[name]] == ["vae/diffusion_pytorch_model.safetensors"]


def test_short_memory_halves_the_pass_and_not_the_step(
    make_alpha_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, short = (make_alpha_run(name, steps=2, sample_every=0, validate_every=0) for name in ("whole", "short"))
    run_training(whole)
    real = steps.example_errors

    def small_memory(network: Any, draws: Any, *rest: Any, **named: Any) -> Any:
        if len(draws) > 2:
            raise MemoryError
        return real(network, draws, *rest, **named)

    monkeypatch.setattr(steps, "example_errors", small_memory)
    run_training(short)
    assert [event["images"] for event in lines(short / "events.jsonl") if event["kind"] == "smaller_batch"] == [2]
    first, second = (lines(run / "metrics.jsonl")[0]["loss"] for run in (whole, short))
    assert first == pytest.approx(second, rel=1e-5)


def test_losses_that_stay_infinite_take_the_run_back_to_the_parent_and_then_end_it(
    make_alpha_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_alpha_run(sample_every=0, validate_every=0, checkpoint_every=100)
    real = steps.example_errors

    def broken(*given: Any, **named: Any) -> Any:
        errors, weights = real(*given, **named)
        return errors * math.inf, weights

    monkeypatch.setattr(steps, "example_errors", broken)
    with pytest.raises(RunRefused, match="diverged"):
        run_training(folder)
    backs = [event for event in lines(folder / "events.jsonl") if event["kind"] == "rolled_back"]
    assert [event["to"] for event in backs] == [0, 0]


def test_opaque_images_are_counted_and_refused(make_alpha_run: MakeRun, tmp_path: Path) -> None:
    path = tmp_path / "discs" / "disc-3.png"
    Image.new("RGB", (32, 32), "red").save(path)
    manifest = tmp_path / "discs" / "disc.jsonl"
    entries = lines(manifest)
    entries[3]["sha256"] = hash_file(path)
    manifest.write_text("\n".join(json.dumps(entry) for entry in entries))
    with pytest.raises(RunRefused, match="1 of the 20 images of “discs” have no transparency"):
        run_training(make_alpha_run())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"method": "lora"}, "method"),
        ({"min_snr_gamma": 5.0}, "min_snr_gamma"),
        ({"noise_offset": 0.1}, "noise_offset"),
        ({"logit_mean": 0.5}, "logit_mean"),
        ({"timestep_sampling": "uniform"}, "timestep_sampling"),
        ({"backgrounds": 17}, "backgrounds"),
        ({"alpha_weight": 0.0}, "alpha_weight"),
    ],
)
def test_settings_that_a_decoder_has_no_use_for_are_refused(
    make_alpha_run: MakeRun, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(RunRefused) as refused:
        load_run(make_alpha_run(**changes) / "run.json")
    assert refused.value.field == field


def test_perfect_decoder_has_no_error_and_all_figures() -> None:
    true = torch.rand((2, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    # What cannot be seen is white.
    true[:, 3], true[:, :, :4] = 1.0, torch.tensor([1.0, 1.0, 1.0, 0.0]).view(4, 1, 1)
    grounds = torch.rand((2, 3, 3), generator=torch.Generator().manual_seed(1))
    colour, alpha = rgba_errors(true, true, grounds)
    assert colour.tolist() == alpha.tolist() == [0.0, 0.0]
    assert alpha_overlap(true, true).tolist() == [1.0, 1.0]
    assert psnr_on_white(true, true).tolist() == [100.0, 100.0]
    inverse = true.clone()
    inverse[:, 3] = 1 - inverse[:, 3]
    assert alpha_overlap(inverse, true).tolist() == [0.0, 0.0]
    assert alpha_overlap(torch.zeros_like(true), torch.zeros_like(true)).tolist() == [1.0, 1.0]
    # All pixels differ by 1, and at one of the seven steps from row to row the difference jumps by 2.
    _, alpha = rgba_errors(inverse, true, grounds)
    assert alpha.tolist() == pytest.approx([1 + 0.5 * 2 / 7] * 2)


def test_draws_do_not_depend_on_their_company(make_alpha_run: MakeRun) -> None:
    folder = make_alpha_run()
    run = prepare(folder, load_run(folder / "run.json"), lambda: False, Group())
    draws = [run.mixture.draw(0, slot) for slot in range(4)]
    with torch.no_grad():
        together, _ = steps.example_errors(run.learner.network, draws, run.inputs)
        alone, _ = steps.example_errors(run.learner.network, draws[2:3], run.inputs)
    torch.testing.assert_close(together[2:3], alone, rtol=1e-5, atol=1e-6)
    assert len({draw.noise_seed for draw in draws}) == 4
