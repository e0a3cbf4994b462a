"""What a run leaves, drawn by a script that knows of torch and diffusers alone: the pixels are those of this project."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generation.engine.draw import DrawRequest, draw
from generation.engine.pipeline import load_pipeline
from tests.training.engine.conftest import MakeRun
from training.engine.trainer import run_training

SCRIPT = """
import json, sys
import torch
from diffusers import StableDiffusionPipeline

for picture in json.load(sys.stdin):
    pipeline = StableDiffusionPipeline.from_pretrained(picture["folder"], dtype=torch.float32)
    if picture["low_rank"]:
        pipeline.load_lora_weights(picture["low_rank"])
    generator = torch.Generator().manual_seed(picture["seed"])
    image = pipeline(picture["prompt"], generator=generator, **picture["settings"]).images[0]
    image.save(picture["name"])

assert not {"generation", "training", "demo"} & set(sys.modules)
"""
PROMPT, SEED, STEPS, GUIDANCE = "a happy cat", 11, 6, 4.0
SAMPLE = {"sample_prompts": [{"prompt": PROMPT, "seed": SEED}], "sample_steps": STEPS, "sample_guidance": GUIDANCE}


def drawn_outside(folder: Path, pictures: dict[str, tuple[Path, Path | None]]) -> dict[str, np.ndarray]:
    """What the script draws by name, each with a model and perhaps a low-rank file on it. `folder` is where it runs."""
    settings = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
    asked = [
        {
            "name": f"{name}.png",
            "folder": str(model),
            "low_rank": low_rank and str(low_rank),
            "prompt": PROMPT,
            "seed": SEED,
            "settings": settings,
        }
        for name, (model, low_rank) in pictures.items()
    ]
    # Isolated: nothing of this project can be imported.
    subprocess.run([sys.executable, "-I", "-c", SCRIPT], input=json.dumps(asked).encode(), cwd=folder, check=True)
    return {name: pixels(folder / f"{name}.png") for name in pictures}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert (image.mode, image.size) == ("RGBA", (32, 32))
        return np.asarray(image).astype(int)


def drawn_here(model: Path) -> np.ndarray:
    request = DrawRequest(PROMPT, seed=SEED, steps=STEPS, guidance=GUIDANCE)
    return np.asarray(draw(load_pipeline(model, "cpu"), [request])[0]).astype(int)


@pytest.mark.processes
def test_results_draw_the_same_pixels_in_a_script_outside(
    make_run: MakeRun, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Sums depend in their last bits on the threads that share them: one here, in the runs, and in the script.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    changes = {**SAMPLE, "learning_rate": 0.01, "validate_every": 0, "sample_every": 6}
    full, low_rank = make_run("full", ema_decay=0.5, **changes), make_run("lora", method="lora", lora_rank=2, **changes)
    for run in (full, low_rank):
        run_training(run)
    outside = drawn_outside(
        tmp_path,
        {
            "parent": (parent, None),
            "full": (full / "result", None),
            "merged": (low_rank / "result", None),
            "file": (parent, low_rank / "result/lora"),
        },
    )
    here = {
        "parent": drawn_here(parent),
        "full": drawn_here(full / "result"),
        "merged": drawn_here(low_rank / "result"),
    }
    for name, picture in here.items():
        assert np.array_equal(outside[name], picture), name
    # The run drew its last sample with the updates beside the parent's weights, which is what the file holds.
    assert np.array_equal(outside["file"], pixels(low_rank / "samples/step-000006/00.png"))
    # The result's weights are rounded to float16, the file's are not.
    assert np.abs(outside["file"] - outside["merged"]).max() <= 3
    # Each was taught so much that no picture is another's.
    for name in ("full", "merged", "file"):
        assert np.abs(outside[name] - outside["parent"]).max() > 8, name
