"""What only a GPU shows: the same bits after a kill, half precision, short memory, compiling, and no waiting."""

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from demo.tiny import WORDS, assemble_pipeline, make_text_encoder, make_vae, save_pipeline
from demo.tokenizer import build_tokenizer
from generation.engine.draw import draw
from generation.engine.folders import hash_file, hash_folder
from generation.engine.pipeline import load_pipeline
from generation.engine.requests import DrawRequest
from jobs.warm import Nursery
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_late_figures import assert_same, broken_where
from tests.training.engine.test_trainer import UNET, Killed, kill_at, lines
from training.engine import steps
from training.engine.group import Group
from training.engine.kernels import choose_kernels
from training.engine.preparation import prepare
from training.engine.recipe import load_run
from training.engine.resuming import resume
from training.engine.steps import train_step
from training.engine.trainer import run_training

ROOT = Path(__file__).parents[3]
TRAINER = [sys.executable, "-m", "training.engine"]

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "fp32", "ema_decay": 0.9, "gradient_accumulation": 2},
        {"method": "lora", "lora_rank": 2},
        {"optimizer": "adamw8bit", "gradient_checkpointing": True},
        {"kernels": "channels_last"},
        {"kernels": "compiled", "sample_prompts": []},
    ],
    ids=["bf16", "fp32", "lora", "8bit", "channels-last", "compiled"],
)
def test_killed_run_resumes_to_the_same_bits(make_run: MakeRun, changes: dict[str, Any]) -> None:
    changes = {"device": "cuda", **changes}
    whole = make_run("whole", **changes)
    run_training(whole)
    torn = make_run("torn", **changes)
    for step in (1, 4):
        with pytest.raises(Killed):
            run_training(torn, kill_at(torn, step))
    run_training(torn)
    assert hash_file(torn / UNET) == hash_file(whole / UNET)


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A parent whose attention is as long as that of Stable Diffusion at 512 px: the fused kernels sum over many blocks there."""
    tokenizer = build_tokenizer(WORDS)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
        )
        pipeline = assemble_pipeline(
            vae=make_vae(256, channels=(8, 8, 16), groups=4),
            unet=unet,
            text_encoder=make_text_encoder(tokenizer, hidden=32, layers=1, heads=2),
            tokenizer=tokenizer,
        )
    save_pipeline(pipeline, tmp_path / "wide")
    return tmp_path / "wide"


@pytest.mark.parametrize(
    ("precision", "kernels"), [("bf16", "plain"), ("bf16", "channels_last"), ("bf16", "compiled"), ("fp32", "plain")]
)
def test_long_attention_repeats_itself(make_run: MakeRun, wide: Path, precision: str, kernels: str) -> None:
    changes = {
        "parent": str(wide),
        "parent_hash": hash_folder(wide)[0],
        "device": "cuda",
        "precision": precision,
        "kernels": kernels,
        "sample_prompts": [],
        "validate_every": 0,
    }
    once, again = make_run("once", **changes), make_run("again", **changes)
    for folder in (once, again):
        run_training(folder)
    assert hash_file(once / UNET) == hash_file(again / UNET)
    kinds = {line["kind"] for line in lines(once / "events.jsonl")}
    assert "unrepeatable" not in kinds


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 2e-2)])
def test_losses_are_those_of_a_cpu(make_run: MakeRun, precision: str, tolerance: float) -> None:
    found = []
    for device in ("cpu", "cuda"):
        folder = make_run(device, device=device, precision="fp32" if device == "cpu" else precision, kernels="plain")
        run_training(folder)
        found.append([line["loss"] for line in lines(folder / "metrics.jsonl")])
    assert found[1] == pytest.approx(found[0], rel=tolerance)


def test_ways_are_tried_on_a_gpu_by_default(make_run: MakeRun) -> None:
    folder = make_run(device="cuda")
    run_training(folder)
    (found,) = [line for line in lines(folder / "events.jsonl") if line["kind"] == "kernels"]
    assert set(found["seconds"]) == {"plain", "channels_last"}
    assert found["failed"] == {}


def test_short_memory_takes_less_at_once(make_run: MakeRun) -> None:
    folder = make_run(device="cuda", batch_size=4096, steps=1, validate_every=0, sample_every=0)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**30 / total)
    try:
        run_training(folder)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    kinds = [line["kind"] for line in lines(folder / "events.jsonl")]
    assert "smaller_batch" in kinds
    assert kinds[-1] == "finished"


@pytest.mark.parametrize("changes", [{}, {"gradient_accumulation": 4, "ema_decay": 0.9}, {"method": "lora"}])
def test_a_step_does_not_wait_for_the_gpu(make_run: MakeRun, changes: dict[str, Any]) -> None:
    """But for the end of the step before it, while the GPU has this one's passes to do."""
    folder = make_run(device="cuda", kernels="plain", **changes)
    run = prepare(folder, load_run(folder / "run.json"), lambda: False, Group())
    resume(run)
    choose_kernels(run)
    run.learner.network.train()
    assert train_step(run) is None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            line = train_step(run)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert line is not None
    assert line["step"] == 1
    assert [str(each.message) for each in caught if "synchroniz" in str(each.message)] == []


def test_steps_that_are_not_finite_are_skipped_as_where_each_waits(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"device": "cuda", "precision": "fp32", "ema_decay": 0.9, "kernels": "plain", "sample_prompts": []}
    late, plain = make_run("late", **changes), make_run("plain", **changes)
    with broken_where(lambda learner: learner.step in (0, 3)):
        run_training(late)
        monkeypatch.setattr(steps, "LATE_DEVICES", set())
        run_training(plain)
    assert_same(plain, late)


def test_a_drawing_repeats_and_is_close_to_a_cpus(parent: Path) -> None:
    requests = [DrawRequest("a cat", seed=seed, steps=4, guidance=4.0) for seed in (1, 2)]
    drawn = {}
    for name, device, dtype in (("cpu", "cpu", "auto"), ("gpu", "cuda", "auto"), ("again", "cuda", "auto")):
        images = draw(load_pipeline(parent, device, dtype), requests, lambda step, total: True)
        drawn[name] = np.stack([np.asarray(image).astype(float) for image in images])
    assert np.array_equal(drawn["gpu"], drawn["again"])
    assert np.abs(drawn["gpu"] - drawn["cpu"]).mean() < 1.0


def test_a_run_that_was_forked_ends_in_the_bits_of_one_that_was_started(make_run: MakeRun, tmp_path: Path) -> None:
    """The process that forks has imported torch and left the driver alone, so that its forks can open it, one after the other."""
    changes = {"device": "cuda", "kernels": "plain"}
    started = make_run("started", **changes)
    log = tmp_path / "log"
    with log.open("wb") as file:
        subprocess.run([*TRAINER, str(started)], cwd=ROOT, stdout=file, stderr=file, check=True)
    nursery = Nursery("training.engine.warm", ROOT)
    try:
        for name in ("forked", "forked again"):
            folder = make_run(name, **changes)
            log = tmp_path / f"{name} log"
            argv = [*TRAINER, str(folder)]
            forked = nursery.start(argv, log_path=log, cwd=ROOT, env=os.environ, while_waiting=lambda: None)
            while not (folder / "metrics.jsonl").exists() and forked.poll() is None:
                time.sleep(0.02)
            # A fork that could not use the GPU would have become the program in the ordinary way by now.
            assert b"jobs.warm" in Path(f"/proc/{forked.pid}/cmdline").read_bytes(), log.read_text()
            assert forked.wait(300) == 0, log.read_text()
            assert hash_file(folder / UNET) == hash_file(started / UNET)
    finally:
        nursery.stop()
