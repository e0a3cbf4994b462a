"""The trainer on a GPU at a real size: a U-Net as large as Stable Diffusion 1.5's (random weights), 512 px, bf16 arithmetic.

Images a second beside a re-stated `train_text_to_image.py` step and a bare step on tensors (see `training_steps`), plain and
in the way that the trainer chooses by trying; what repeatable arithmetic costs; the most memory held, also with AdamW in 8
bits and with gradient checkpointing; a checkpoint's time. Figures are medians of rounds that take turns. Then the trainer and
diffusers' own script as processes, where DIFFUSERS_TRAIN_SCRIPT names it (see `beside_diffusers`), and how soon a trainer
of the demo model begins. Without a GPU a line says that nothing was measured.
"""

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.beside_diffusers import measure_rate_beside_script
from benchmarks.starts import measure_starts
from benchmarks.training import PARENT as DEMO_MODEL
from benchmarks.training_steps import (
    Step,
    bare_step,
    checkpoint_stall,
    draw_images,
    medians,
    our_step,
    prepare_run,
    restated_step,
    take_turns,
    unrepeatable,
    write_run,
)

BATCH, SIZE, IMAGES = 8, 512, 64
# The script reads and transforms its images in the trainer's own process unless it is told otherwise.
SCRIPT_WORKERS = "8"
ROUNDS, STEPS_A_ROUND = 3, 4


def measure() -> Iterator[dict[str, Any]]:
    """The measurements in the order of the module's docstring."""
    import torch

    if not torch.cuda.is_available():
        yield {"what": "training at a real size was not measured: this machine has no GPU", "value": None}
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parent = make_parent(folder / "parent")
        manifest = draw_images(folder / "data", [f"a sticker of a cat {number}" for number in range(IMAGES)], SIZE)
        for part in (_throughput, _memory, _beside_script, _starts):
            yield from part(folder, parent, manifest)


def make_parent(folder: Path, seed: int = 1) -> Path:
    """A random pipeline folder with the shapes of Stable Diffusion 1.5, and the demo's words."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from demo.tiny import WORDS, assemble_pipeline, save_pipeline
    from demo.tokenizer import build_tokenizer

    torch.manual_seed(seed)
    tokenizer = build_tokenizer(WORDS)
    channels = (128, 256, 512, 512)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        vae = AutoencoderKL(
            block_out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            sample_size=SIZE,
        )
        # diffusers' defaults are Stable Diffusion's but for the width of its text.
        unet = UNet2DConditionModel(sample_size=SIZE // 8, cross_attention_dim=768)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768,
                intermediate_size=3072,
                num_hidden_layers=12,
                num_attention_heads=12,
                vocab_size=len(tokenizer),
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    pipeline = assemble_pipeline(vae=vae, unet=unet, text_encoder=text_encoder, tokenizer=tokenizer)
    save_pipeline(pipeline.to("cpu"), folder)
    return folder


def prepare(folder: Path, parent: Path, manifest: Path, **changes: Any) -> Any:
    """A run that is ready for its first step."""
    settings = {"device": "cuda", "precision": "bf16", "batch_size": BATCH, **changes}
    return prepare_run(write_run(folder, parent, manifest, folder.parent / "cache", **settings))


def _throughput(folder: Path, parent: Path, manifest: Path) -> Iterator[dict[str, Any]]:
    started = time.perf_counter()
    plain = prepare(folder / "plain", parent, manifest, kernels="plain")
    device = plain.pipeline.device
    yield {
        "unit": "seconds",
        "what": f"preparing a run, with a cache of {IMAGES} images and captions",
        "value": round(time.perf_counter() - started, 2),
        "device": _name(device),
    }
    chosen = prepare(folder / "chosen", parent, manifest, kernels="auto")
    yield {"what": "ways tried, seconds of a step's passes", "value": chosen.files.events("kernels")[-1]}

    ours = {"ours, plain": our_step(plain), "ours, chosen": our_step(chosen)}
    peers: list[Callable[[], dict[str, Step]]] = [
        lambda: beside_bare(ours["ours, plain"], bare_step(parent, plain, BATCH, bf16=True)),
        lambda: {"script": restated_step(parent, manifest, BATCH, device, bf16=True)},
    ]
    # One peer at a time: five networks with their moments leave a GPU of 80 GB too little for a step.
    for make_peers in peers:
        steps = {**ours, **make_peers()}
        seconds = take_turns(steps, rounds=ROUNDS, steps_a_round=STEPS_A_ROUND, device=device)
        times = medians(seconds)
        for name, each in times.items():
            yield {
                "unit": "images a second",
                "what": name,
                "value": round(BATCH / each, 2),
                "ours_chosen_over_it": round(each / times["ours, chosen"], 3),
                "ours_plain_over_it": round(each / times["ours, plain"], 3),
                "rounds": [round(took, 4) for took in seconds[name]],
                "device": _name(device),
            }
        del steps
        _forget()
    yield checkpoint_stall(chosen, 2, times["ours, chosen"])


def beside_bare(ours: Step, bare: Step) -> dict[str, Step]:
    """The bare step, and both as they go without repeating themselves."""
    return {"ours, plain, not repeatable": unrepeatable(ours), "bare": bare, "bare, not repeatable": unrepeatable(bare)}


def _forget() -> None:
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def _memory(folder: Path, parent: Path, manifest: Path) -> Iterator[dict[str, Any]]:
    """The most bytes held by each kind of run through six steps, of which four are timed; one after the other."""
    import torch

    kinds: dict[str, dict[str, Any]] = {
        "full": {},
        "full, 8 bits": {"optimizer": "adamw8bit"},
        "full, 8 bits, checkpointing": {"optimizer": "adamw8bit", "gradient_checkpointing": True},
        "LoRA": {"method": "lora", "learning_rate": 1e-4},
    }
    for number, (name, changes) in enumerate(kinds.items()):
        _forget()
        torch.cuda.reset_peak_memory_stats()
        run = prepare(folder / f"memory-{number}", parent, manifest, kernels="plain", **changes)
        step = our_step(run)
        for _ in range(2):
            step()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(4):
            step()
        torch.cuda.synchronize()
        yield {
            "unit": "bytes",
            "what": f"the most that the GPU held: {name}",
            "value": torch.cuda.max_memory_allocated(),
            "images_per_second": round(4 * BATCH / (time.perf_counter() - started), 2),
            "loss": run.learner.final_loss,
        }
        del run, step


def _beside_script(folder: Path, parent: Path, manifest: Path) -> Iterator[dict[str, Any]]:
    # Too few steps for compiling to pay, and no checkpoint among those that are timed: a run reserves room on the disk for all
    # that it would keep, 43 GB with two of them.
    settings = {"device": "cuda", "precision": "bf16", "batch_size": BATCH, "steps": 1000, "keep_checkpoints": 1}

    def make_run(name: str, cache: Path, **changes: Any) -> Path:
        return write_run(folder / name, parent, manifest, cache, **settings, **changes)

    workers = ("--dataloader_num_workers", SCRIPT_WORKERS)
    yield from measure_rate_beside_script(folder, manifest, make_run, BATCH, *workers)


def _starts(folder: Path, parent: Path, manifest: Path) -> Iterator[dict[str, Any]]:
    del parent
    settings = {"device": "cuda", "batch_size": BATCH, "checkpoint_every": 2}
    yield from measure_starts(write_run(folder / "started", DEMO_MODEL, manifest, folder / "cold", **settings))


def _name(device: Any) -> str:
    import torch

    return str(torch.cuda.get_device_name(device))
