"""Validation losses after as many samples, beside diffusers' own train_text_to_image.py, from the same start on the same images.

Weights, images, captions, batch, precision (float32), learning rate, clipping, weight decay and the moving average are the same.
What is compared are the moving averages of the weights, which both publish, by one function on one grid that neither sees
while it trains: held-out images at timesteps over the whole range, each with noise of its own that is drawn once.

First with the same draws: each step of the script re-stated with diffusers' scheduler, a plain AdamW and diffusers' EMAModel,
on the images, timesteps and noise that the trainer draws. There "equal" means: but for rounding.

Then the script itself, as it is, with draws of its own, for three seeds; DIFFUSERS_TRAIN_SCRIPT names it (see
`beside_diffusers`). There "equal" can only be said of means: the mean difference has a 95 % interval by Student's t, and
what is smaller than half of that interval would not have been seen. Both go through the images in epochs.
"""

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.beside_diffusers import script_arguments, side_of
from benchmarks.trainer_processes import Failed, Watched, describe_script, start_ours, start_script, write_image_folder
from benchmarks.training import PARENT, captions
from benchmarks.training_steps import (
    as_libraries_set_torch,
    draw_images,
    pinned_batch,
    prepare_run,
    target_of,
    write_run,
)

SEEDS = (1, 2, 3)
# Student's t for a 95 % interval from three seeds: two degrees of freedom.
STUDENT = 4.303
TRAINED, HELD_OUT, BATCH, STEPS = 96, 32, 8, 60
POINTS = 20
# High enough for the loss to fall far in so few steps; the decay is the script's own.
SETTINGS = {
    "image_draws": "epochs",
    "learning_rate": 1e-4,
    "ema_decay": 0.9999,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "precision": "fp32",
}

LossOf = Callable[[dict[str, Any]], float]


def measure() -> Iterator[dict[str, Any]]:
    """One measurement for the same draws, one for each seed, and one for all seeds."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained, held_out = _write_images(folder)
        loss_of = make_grid(held_out)
        before = loss_of(_weights_in(PARENT / "unet"))

        def train(seed: int) -> Path:
            run = _write(folder / f"seed-{seed}", trained, folder / "cache", seed)
            _finish(start_ours(run))
            return run

        first = train(SEEDS[0])
        yield _same_draws(first, loss_of, before)
        if not (script := os.environ.get("DIFFUSERS_TRAIN_SCRIPT")):
            yield {"what": "diffusers' own script was not run: DIFFUSERS_TRAIN_SCRIPT names none", "value": None}
            return
        images = write_image_folder(trained, folder / "imagefolder")
        pairs = []
        for seed in SEEDS:
            run = first if seed == SEEDS[0] else train(seed)
            output = folder / f"script-{seed}"
            _finish(start_script(Path(script).resolve(), script_arguments(run, images, seed), output))
            mine, theirs = loss_of(_averages_in(run)), loss_of(_weights_in(output / "unet"))
            pairs.append((mine, theirs))
            yield {
                "unit": "loss",
                "what": f"validation after {STEPS * BATCH} samples, draws of their own, seed {seed}",
                "value": mine,
                "peer_value": theirs,
                "difference": mine - theirs,
                "before": before,
            }
        yield {**summarise(pairs, before), "peer": describe_script(Path(script))}


def summarise(pairs: list[tuple[float, float]], before: float) -> dict[str, Any]:
    """What (our loss, the other's) of three seeds say together; `before` is the parent's loss."""
    differences = [mine - theirs for mine, theirs in pairs]
    mean, deviation = statistics.mean(differences), statistics.stdev(differences)
    half = STUDENT * deviation / len(pairs) ** 0.5
    learned = before - statistics.mean(theirs for _, theirs in pairs)
    return {
        "unit": "loss",
        "what": f"mean difference of validation losses over {len(pairs)} seeds, with its 95 % interval",
        "value": mean,
        "interval": [mean - half, mean + half],
        "includes_zero": abs(mean) <= half,
        "standard_deviation": deviation,
        "between_seeds": [statistics.stdev(each) for each in zip(*pairs, strict=True)],
        # Half of the interval: a difference that is larger than this would have been told from none.
        "seen_from": half,
        "share_of_what_was_learned": {"value": mean / learned, "seen_from": half / learned},
    }


def make_grid(manifest: Path) -> LossOf:
    """loss_of(weights of the denoiser by name) -> mean squared error of its prediction, in float32, over the images of the
    manifest at `POINTS` timesteps, from the middle of the first of as many equal parts of the range on."""
    import torch
    from diffusers import DDPMScheduler, StableDiffusionPipeline
    from PIL import Image
    from torchvision.transforms.functional import to_tensor

    pipe = StableDiffusionPipeline.from_pretrained(PARENT, dtype=torch.float32, local_files_only=True)
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    generator = torch.Generator("cpu").manual_seed(20_311)
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    pixels = torch.stack([to_tensor(Image.open(manifest.parent / row["image"]).convert("RGB")) for row in rows]) * 2 - 1
    texts = [row["caption"] for row in rows]
    with torch.no_grad():
        clean = pipe.vae.encode(pixels).latent_dist.sample(generator) * pipe.vae.config.scaling_factor
        tokens = pipe.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        text = pipe.text_encoder(tokens.input_ids)[0]
    part = schedule.config.num_train_timesteps / POINTS
    noise = torch.randn((POINTS, *clean.shape), generator=generator)

    def loss_of(weights: dict[str, Any]) -> float:
        pipe.unet.load_state_dict(weights)
        losses = []
        with torch.no_grad():
            for point in range(POINTS):
                times = torch.full((len(clean),), int((point + 0.5) * part))
                noisy = schedule.add_noise(clean, noise[point], times)
                said = pipe.unet.eval()(noisy, times, text).sample
                losses.append((said - target_of(schedule, clean, noise[point], times)).square().mean().item())
        return statistics.mean(losses)

    return loss_of


def _same_draws(run: Path, loss_of: LossOf, before: float) -> dict[str, Any]:
    """The run's validation loss beside that of the re-stated steps on its own draws."""
    mine, theirs = loss_of(_averages_in(run)), loss_of(train_pinned(run))
    return {
        "unit": "loss",
        "what": f"validation after {STEPS * BATCH} samples, same draws, beside diffusers' own arithmetic",
        "value": mine,
        "peer_value": theirs,
        "difference": mine - theirs,
        "before": before,
    }


def train_pinned(folder: Path) -> dict[str, Any]:
    """The weights' moving average after the run's steps, as the script computes them from the run's own draws."""
    import torch
    from diffusers import DDPMScheduler, StableDiffusionPipeline
    from diffusers.training_utils import EMAModel

    run = prepare_run(folder)
    pipe = StableDiffusionPipeline.from_pretrained(PARENT, dtype=torch.float32, local_files_only=True)
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    unet = pipe.unet.train()
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=run.settings.learning_rate, weight_decay=run.settings.weight_decay
    )
    average = EMAModel(unet.parameters(), decay=run.settings.ema_decay, model_cls=type(unet), model_config=unet.config)
    with as_libraries_set_torch():
        for step in range(run.settings.steps):
            noisy, times, text, target = pinned_batch(run, schedule, step)
            torch.nn.functional.mse_loss(unet(noisy, times, text).sample, target, reduction="mean").backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), run.settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            average.step(unet.parameters())
    average.copy_to(unet.parameters())
    return dict(unet.state_dict())


def _write_images(folder: Path) -> tuple[Path, Path]:
    """Manifests of the images that are trained on and of those that are held out, at the model's own size: both then resize nothing."""
    drawn = draw_images(folder / "data", captions(TRAINED + HELD_OUT), side_of(PARENT))
    rows = drawn.read_text(encoding="utf-8").splitlines(keepends=True)
    manifests = drawn.with_name("trained.jsonl"), drawn.with_name("held-out.jsonl")
    for manifest, part in zip(manifests, (rows[:TRAINED], rows[TRAINED:]), strict=True):
        manifest.write_text("".join(part), encoding="utf-8")
    return manifests


def _write(folder: Path, manifest: Path, cache: Path, seed: int) -> Path:
    device: dict[str, Any] = {"device": "cpu", "num_threads": os.cpu_count() or 1}
    steps = {"steps": STEPS, "checkpoint_every": STEPS, "batch_size": BATCH, "seed": seed}
    return write_run(folder, PARENT, manifest, cache, **device, **steps, **SETTINGS)


def _finish(watched: Watched) -> None:
    watched.wait_for(STEPS)
    if watched.process.wait():
        raise Failed(f"The trainer reached its last step and failed then:\n{watched.tail()}")


def _averages_in(run: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(run / f"checkpoints/step-{STEPS:06d}/ema.safetensors")


def _weights_in(folder: Path) -> dict[str, Any]:
    import torch
    from diffusers import UNet2DConditionModel

    return dict(UNet2DConditionModel.from_pretrained(folder, dtype=torch.float32).state_dict())
