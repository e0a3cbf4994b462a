"""Steps to time: the trainer's own, and two that it is put beside, a re-stated step of diffusers' `train_text_to_image.py`
and a bare step on tensors.

The other two train a U-Net of their own, with the weights of the run's parent, on the same device, in the same arithmetic and with
the same kind of update. The re-stated step does what the script does for each of its steps, with its defaults: it reads
and transforms the images, encodes them with the VAE and the captions with the text encoder, updates with an AdamW that is
not fused and diffusers' EMAModel, and asks for the loss as a number. It is a re-statement: no accelerate, no data workers.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Step = Callable[[], None]


def take_turns(steps: Mapping[str, Step], *, rounds: int, steps_a_round: int, device: Any) -> dict[str, list[float]]:
    """Seconds of a step of each, by round, after one round that warms all up."""

    def seconds_of(step: Step) -> float:
        started = time.perf_counter()
        for _ in range(steps_a_round):
            step()
        _synchronize(device)
        return (time.perf_counter() - started) / steps_a_round

    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            took = seconds_of(step)
            if number:
                seconds[name].append(took)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(each) for name, each in seconds.items()}


@contextmanager
def as_libraries_set_torch() -> Iterator[None]:
    """torch as a script finds it, which does not ask for results that repeat: the trainer does, in the same process."""
    import torch

    kept = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = False
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = kept
        torch.use_deterministic_algorithms(True, warn_only=True)


def unrepeatable(step: Step) -> Step:
    """The step with torch as a script finds it."""

    def with_other_settings() -> None:
        with as_libraries_set_torch():
            step()

    return with_other_settings


def restated_step(parent: Path, manifest: Path, batch: int, device: Any, *, bf16: bool = False) -> Step:
    """The example script's step on the images of the manifest."""
    import torch
    from diffusers import DDPMScheduler, StableDiffusionPipeline
    from diffusers.training_utils import EMAModel
    from PIL import Image
    from torchvision import transforms

    pipe = StableDiffusionPipeline.from_pretrained(parent, dtype=torch.float32, local_files_only=True).to(device)
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    unet = pipe.unet.train()
    half = torch.bfloat16 if bf16 else torch.float32
    for part in (pipe.vae, pipe.text_encoder):
        part.requires_grad_(False).to(half)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5, weight_decay=0.01)
    ema = EMAModel(unet.parameters(), decay=0.999, model_cls=type(unet), model_config=unet.config)
    size = unet.config.sample_size * 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    prepare = transforms.Compose(
        [
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BILINEAR),
            transforms.CenterCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    )
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]

    def step() -> None:
        chosen = [rows[index] for index in torch.randint(len(rows), (batch,)).tolist()]
        images = torch.stack([prepare(Image.open(manifest.parent / row["image"]).convert("RGB")) for row in chosen])
        latents = pipe.vae.encode(images.to(device, half)).latent_dist.sample() * pipe.vae.config.scaling_factor
        tokens = pipe.tokenizer(
            [row["caption"] for row in chosen], padding="max_length", truncation=True, return_tensors="pt"
        )
        text = pipe.text_encoder(tokens.input_ids.to(device), return_dict=False)[0]
        noise = torch.randn_like(latents)
        times = torch.randint(0, schedule.config.num_train_timesteps, (batch,), device=device)
        noisy = schedule.add_noise(latents.float(), noise.float(), times).to(half)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            predicted = unet(noisy, times, text, return_dict=False)[0]
        target = target_of(schedule, latents, noise, times)
        loss = torch.nn.functional.mse_loss(predicted.float(), target.float(), reduction="mean")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(unet.parameters())
        loss.item()

    return unrepeatable(step)


def draw_images(folder: Path, captions: Sequence[str], size: int) -> Path:
    """A smooth coloured picture of `size` px for each caption, as PNG files, and their manifest."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(1)
    lines = []
    for number, caption in enumerate(captions):
        path = folder / f"{number:03d}.png"
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((size, size), Image.Resampling.BICUBIC).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(json.dumps({"image": path.name, "caption": caption, "sha256": digest}))
    manifest = folder / "images.jsonl"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


def write_run(folder: Path, parent: Path, manifest: Path, cache: Path, **changes: Any) -> Path:
    """A run's folder, for training that neither validates nor draws nor ends."""
    from generation.engine.folders import hash_folder

    folder.mkdir()
    settings = {
        "schema": 1,
        "parent": str(parent),
        "parent_hash": hash_folder(parent)[0],
        "sources": [{"name": "style", "manifest": str(manifest)}],
        "cache_dir": str(cache),
        "steps": 100_000,
        "checkpoint_every": 100_000,
        "validate_every": 0,
        "sample_every": 0,
        "learning_rate": 1e-5,
        "ema_decay": 0.999,
        "caption_dropout": 0.0,
        "seed": 1,
        **changes,
    }
    (folder / "run.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def prepare_run(folder: Path) -> Any:
    """The run in a folder, ready for its first step."""
    from training.engine.group import Group
    from training.engine.kernels import choose_kernels
    from training.engine.preparation import prepare
    from training.engine.recipe import load_run
    from training.engine.resuming import resume

    run = prepare(folder, load_run(folder / "run.json"), lambda: False, Group())
    resume(run)
    choose_kernels(run)
    run.learner.network.train()
    return run


def our_step(run: Any) -> Step:
    """The trainer's own step, with what its loop writes."""
    from training.engine.steps import train_step

    def step() -> None:
        line = train_step(run)
        if line is not None:
            run.files.metric(line)
        run.files.progress(phase="training", step=run.learner.step)

    return step


def checkpoint_stall(run: Any, times: int, step_seconds: float) -> dict[str, Any]:
    """The measurement of what a checkpoint costs, as the median of some: what the steps up to its being on disk took
    beyond `step_seconds` each, the ordinary time of a step; and, of that, how long nothing was trained."""
    from training.engine.saving import save
    from training.engine.steps import settle_step

    step = our_step(run)
    costs, waits, steps = [], [], []
    for _ in range(times):
        run.writer.wait()
        step()
        settle_step(run)
        _synchronize(run.pipeline.device)
        started = time.perf_counter()
        save(run)
        waits.append(time.perf_counter() - started)
        taken = 0
        while run.writer.is_busy:
            step()
            taken += 1
        settle_step(run)
        _synchronize(run.pipeline.device)
        costs.append(time.perf_counter() - started - taken * step_seconds)
        steps.append(taken)
        run.writer.wait()
    return {
        "unit": "seconds",
        "what": "what a checkpoint costs the steps beside it",
        "value": round(statistics.median(costs), 3),
        "nothing_is_trained_for": round(statistics.median(waits), 3),
        "steps_until_on_disk": statistics.median(steps),
    }


def _synchronize(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def target_of(schedule: Any, latents: Any, noise: Any, times: Any) -> Any:
    """What the denoiser should say, by diffusers' arithmetic."""
    kind = schedule.config.prediction_type
    return noise if kind == "epsilon" else schedule.get_velocity(latents, noise, times)


def pinned_batch(run: Any, schedule: Any, step: int) -> tuple[Any, Any, Any, Any]:
    """(noisy latents, timesteps, text, target) of a step's own draws, by diffusers' arithmetic."""
    import torch

    from training.engine.batches import make_batch

    draws = [run.mixture.draw(step, slot) for slot in range(run.settings.batch_size)]
    text = make_batch(draws, run.encoded, run.diffusion, run.scaling_factor).text
    latents, noise = [], []
    for draw in draws:
        mean, std = run.encoded.latent(draw)
        generator = torch.Generator("cpu").manual_seed(draw.noise_seed)
        posterior, eps = torch.randn((2, *mean.shape), generator=generator)
        latents.append((mean + std * posterior) * run.scaling_factor)
        noise.append(eps)
    clean, eps = torch.stack(latents), torch.stack(noise)
    times = torch.tensor([draw.timestep for draw in draws])
    return schedule.add_noise(clean, eps, times), times, text, target_of(schedule, clean, eps, times)


def bare_step(parent: Path, run: Any, batch_size: int, *, bf16: bool = False) -> Step:
    """Forward, backward and the same update, on one batch that lies in memory, with torch as the trainer sets it: what no
    trainer can be faster than, computed plainly."""
    import torch
    from diffusers import UNet2DConditionModel

    from training.engine.batches import make_batch
    from training.engine.repeatable import repeating

    device = run.pipeline.device
    unet = UNet2DConditionModel.from_pretrained(parent / "unet", dtype=torch.float32).to(device).train()
    batch = make_batch(
        [run.mixture.draw(0, slot) for slot in range(batch_size)], run.encoded, run.diffusion, run.scaling_factor
    )
    parameters = list(unet.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.01, fused=True)
    averages = [each.detach().clone() for each in parameters]

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            predicted = unet(batch.noisy, batch.timesteps, batch.text, return_dict=False)[0]
        (predicted.float() - batch.target).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(averages, [each.detach() for each in parameters], 0.001)

    def repeatable() -> None:
        with repeating(strictly=True):
            step()

    return repeatable
