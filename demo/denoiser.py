"""The demo's U-Net: a recipe on the project's own training engine, from a parent that has all parts but a taught U-Net."""

import json
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from demo.looks import LOOKS, SIZE
from demo.text_encoder import HIDDEN, MAX_LENGTH
from demo.tiny import assemble_pipeline, make_unet, save_pipeline
from generation.engine.folders import hash_folder

BATCH = 16
LEARNING_RATE = 8e-4
EMA_DECAY = 0.999
# Half of the draws come from noise above that of t = 600, where words alone decide what is drawn: that takes longest.
NOISY = {"log_snr_min": None, "log_snr_max": -1.652417}
# The base look is what most captions ask for, but the others are what has to be told apart.
WEIGHTS = {"photographic": 1.0, "plain": 1.0, "die-cut": 1.0, "outline": 1.0, "pastel": 1.0}
WATCHED = (
    "a cat", "a happy face, plain", "die-cut sticker of a fox", "an outline drawing of a house", "a guitar, pastel",
    "die-cut sticker of a cat and a red heart", "die-cut sticker of a woman firefighter with dark skin", "a rocket",
)  # fmt: skip


def write_parent(
    folder: Path,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    encoder: CLIPTextModel,
    seed: int,
    unet: UNet2DConditionModel | None = None,
) -> None:
    """The pipeline that a run starts from: everything taught but the U-Net, whose weights are random unless given."""
    torch.manual_seed(seed)
    unet = unet or make_unet(SIZE // 8, channels=(64, 128, 160), cross_dim=HIDDEN, layers=1, groups=16)
    # Where the build kept its parts is nobody's business.
    vae.register_to_config(_name_or_path="")
    pipeline = assemble_pipeline(vae=vae, unet=unet, text_encoder=encoder, tokenizer=tokenizer)
    save_pipeline(pipeline, folder)


def seconds_a_step(parent: Path, device: str) -> float:
    """The median time of an optimizer step of the parent's U-Net on random numbers, in seconds."""
    unet = UNet2DConditionModel.from_pretrained(parent / "unet", dtype=torch.float32).to(device).train()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-9, fused=True)
    noisy = torch.randn(BATCH, 4, SIZE // 8, SIZE // 8, device=device)
    times, text = torch.randint(0, 1000, (BATCH,), device=device), torch.randn(BATCH, MAX_LENGTH, HIDDEN, device=device)
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        unet(noisy, times, encoder_hidden_states=text).sample.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def write_recipe(folder: Path, *, parent: Path, renders: Path, cache: Path, steps: int, seed: int, device: str) -> None:
    """The run's `run.json`, unless the folder holds a run already: two sources a look, over all noise and over the noisier
    part of it."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "run.json").exists():
        return
    settings = {
        "schema": 1,
        "parent": str(parent.resolve()),
        "parent_hash": hash_folder(parent)[0],
        "sources": [
            {
                "name": name,
                "manifest": str((renders / f"{look}.jsonl").resolve()),
                "weight": WEIGHTS[look],
                "band": band,
            }
            for look in LOOKS
            for name, band in ((look, {}), (f"{look}, noisy", NOISY))
        ],
        "mixture": "shares",
        "cache_dir": str(cache.resolve()),
        "steps": steps,
        "batch_size": BATCH,
        "learning_rate": LEARNING_RATE,
        "schedule": "cosine",
        "warmup_steps": min(50, steps),
        "ema_decay": EMA_DECAY,
        "caption_dropout": 0.1,
        "seed": seed,
        "checkpoint_every": 100,
        "validate_every": 0,
        "sample_every": 500,
        "sample_prompts": [{"prompt": prompt, "seed": number} for number, prompt in enumerate(WATCHED)],
        "sample_guidance": 3.0,
        "device": device,
        "num_threads": torch.get_num_threads(),
    }
    (folder / "run.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def train_denoiser(folder: Path) -> Path:
    """Run the engine on the folder until it is done, and return the folder of the finished pipeline.

    Raises RuntimeError with the engine's own sentence where it refuses or fails; a second call goes on from the newest
    checkpoint.
    """
    process = subprocess.Popen([sys.executable, "-m", "training.engine", str(folder)])
    said = ""
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        said = _say(folder, said)
    if process.returncode:
        error = folder / "error.json"
        reason = json.loads(error.read_text())["sentence"] if error.exists() else "It was stopped."
        raise RuntimeError(f"The U-Net's run ended with exit status {process.returncode}: {reason}")
    return folder / "result"


def _say(folder: Path, said: str) -> str:
    """Print the run's progress where it changed, with the time left."""
    try:
        now = json.loads((folder / "progress.json").read_text())
    except (OSError, ValueError):
        return said
    line = f"unet {now['phase']} {now.get('step', 0)} of {now.get('steps')}"
    if now.get("phase") == "caching":
        line = f"unet caching {now.get('done')} of {now.get('total')}"
    elif now.get("eta_seconds") is not None and now.get("loss") is not None:
        line += f", loss {now['loss']:.4f}, {now['eta_seconds'] / 60:.0f} min left"
    if line != said:
        print(line, flush=True)
    return line
