"""Images a second of the trainer beside a re-stated `train_text_to_image.py` step, and beside a bare step on tensors.

All three have the same weights, data, batch, precision (float32) and updates (AdamW, gradient clipping, a moving average),
and take turns in one process, so that the machine's mood hits all; figures are medians, ratios above 1 mean that ours is
faster. `training_steps` says what the other two are. The script itself is measured too where DIFFUSERS_TRAIN_SCRIPT names
it: see `beside_diffusers`.

Besides: seconds from a cold start to the first step, and again after a SIGKILL; seconds to build the cache, and after how
many steps it has paid for itself; how long a checkpoint holds the training up; and how far the two first losses are apart
with the same noise.
"""

import csv
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.beside_diffusers import measure_beside_script
from benchmarks.starts import measure_starts
from benchmarks.training_steps import (
    bare_step,
    checkpoint_stall,
    draw_images,
    medians,
    our_step,
    pinned_batch,
    prepare_run,
    restated_step,
    take_turns,
    write_run,
)

ROOT = Path(__file__).resolve().parents[1]
PARENT = ROOT / "demo" / "model"
IMAGES, BATCH = 64, 16
ROUNDS, STEPS_A_ROUND = 5, 4


def measure() -> Iterator[dict[str, Any]]:
    """The measurements in the order of the module's docstring."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = draw_images(folder / "data", captions(IMAGES), 256)
        run, cache_seconds = _prepare(folder, manifest)
        yield from _throughput(run, cache_seconds, manifest)
        yield from measure_starts(_write_run(folder / "process", manifest, folder / "cold", checkpoint_every=2))

        def make_run(name: str, cache: Path, **changes: Any) -> Path:
            return _write_run(folder / name, manifest, cache, **changes)

        yield from measure_beside_script(folder, manifest, make_run, BATCH, cache_seconds)


def captions(count: int) -> list[str]:
    """The prompts of the evaluation set, over and over."""
    with (ROOT / "demo/prompts/house-style-eval.csv").open(encoding="utf-8") as file:
        prompts = [row["prompt"] for row in csv.DictReader(file)]
    return [prompts[number % len(prompts)] for number in range(count)]


def _write_run(folder: Path, manifest: Path, cache: Path, **changes: Any) -> Path:
    settings = {"device": "cpu", "num_threads": os.cpu_count() or 1, "batch_size": BATCH, **changes}
    return write_run(folder, PARENT, manifest, cache, **settings)


def _prepare(folder: Path, manifest: Path) -> tuple[Any, float]:
    """(a run that is ready for its first step, seconds that its cache took)."""
    from training.engine.group import Group
    from training.engine.preparation import prepare
    from training.engine.recipe import load_run

    started = time.perf_counter()
    where = _write_run(folder / "run", manifest, folder / "cache")
    run = prepare_run(where)
    cold = time.perf_counter() - started
    started = time.perf_counter()
    prepare(where, load_run(where / "run.json"), lambda: False, Group())
    return run, cold - (time.perf_counter() - started)


def _throughput(run: Any, cache_seconds: float, manifest: Path) -> Iterator[dict[str, Any]]:
    yield {
        "unit": "loss",
        "what": "first step beside diffusers' own arithmetic, same noise",
        **_compare_first_loss(run),
    }
    device = run.pipeline.device
    steps_of = {
        "ours": our_step(run),
        "script": restated_step(PARENT, manifest, BATCH, device),
        "bare": bare_step(PARENT, run, BATCH),
    }
    times = medians(take_turns(steps_of, rounds=ROUNDS, steps_a_round=STEPS_A_ROUND, device=device))
    yield _compare(times, "script", "re-stated train_text_to_image step")
    yield _compare(times, "bare", "bare forward, backward and update on tensors in memory")
    saved = times["script"] - times["ours"]
    yield {
        "unit": "seconds",
        "what": f"cache of {IMAGES} images and captions",
        "value": round(cache_seconds, 3),
        "break_even_steps": round(cache_seconds / saved, 1) if saved > 0 else None,
    }
    yield checkpoint_stall(run, 3, times["ours"])


def _compare(times: dict[str, float], other: str, peer: str) -> dict[str, Any]:
    """Our images a second beside another's, from the seconds of a step of each."""
    mine, theirs = BATCH / times["ours"], BATCH / times[other]
    return {
        "unit": "images a second",
        "value": round(mine, 2),
        "peer": peer,
        "peer_value": round(theirs, 2),
        "ratio": round(mine / theirs, 3),
        "threads": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "batch": BATCH,
    }


def _compare_first_loss(run: Any) -> dict[str, Any]:
    """The trainer's first loss, and diffusers' arithmetic for the same images, noise and timesteps."""
    import torch
    from diffusers import DDPMScheduler, StableDiffusionPipeline

    from training.engine.batches import make_batch

    draws = [run.mixture.draw(0, slot) for slot in range(BATCH)]
    batch = make_batch(draws, run.encoded, run.diffusion, run.scaling_factor)
    pipe = StableDiffusionPipeline.from_pretrained(PARENT, dtype=torch.float32, local_files_only=True)
    noisy, times, text, target = pinned_batch(run, DDPMScheduler.from_config(pipe.scheduler.config), 0)
    with torch.no_grad():
        their_loss = torch.nn.functional.mse_loss(pipe.unet(noisy, times, text).sample, target).item()
        ours = run.learner.network(batch.noisy, batch.timesteps, batch.text).sample
        our_loss = (ours - batch.target).square().mean().item()
    return {"value": our_loss, "peer_value": their_loss, "difference": abs(our_loss - their_loss)}
