"""A tiny random parent, coloured squares as images, and a run folder that trains in a second."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from demo.tiny import build_tiny
from generation.engine.folders import hash_folder
from training.engine.bands import split_at
from training.engine.noise import NoiseSchedule

MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("parent") / "model", seed=3)


@pytest.fixture(scope="session")
def small_parent(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With each kind of block that is a unit of its own in shards, and few tensors: every one takes every process time."""
    folder = Path(shutil.copytree(parent, tmp_path_factory.mktemp("small") / "model"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16,),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",),
            mid_block_type=None,
            up_block_types=("UpBlock2D",),
            cross_attention_dim=32,
            attention_head_dim=4,
            norm_num_groups=8,
        )
    unet.half().save_pretrained(folder / "unet")
    return folder


@pytest.fixture(scope="session")
def schedule(parent: Path) -> NoiseSchedule:
    return NoiseSchedule.from_config(json.loads((parent / "scheduler" / "scheduler_config.json").read_text()))


def write_manifest(folder: Path, name: str, count: int) -> str:
    """`count` squares of different colours with captions; returns the manifest's path."""
    lines = []
    for i in range(count):
        path = folder / f"{name}-{i}.png"
        colour = (37 * i % 256, 90 if name == "style" else 200, 11 * i % 256, 255 if i % 2 else 128)
        Image.new("RGBA", (40, 32), colour).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(json.dumps({"image": path.name, "caption": f"a {name} cat {i}", "sha256": digest, "note": "x"}))
    manifest = folder / f"{name}.jsonl"
    manifest.write_text("\n".join(lines))
    return str(manifest)


@pytest.fixture
def make_run(tmp_path: Path, parent: Path, schedule: NoiseSchedule) -> MakeRun:
    """Write a run folder: Style Tailoring of 5 content and 6 style images unless `changes` say otherwise."""
    data = tmp_path / "data"
    data.mkdir()
    split = split_at(schedule)
    manifests = {name: write_manifest(data, name, count) for name, count in (("content", 5), ("style", 6))}
    parent_hash, _ = hash_folder(parent)

    def make(name: str = "run", **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        settings = {
            "schema": 1,
            "parent": str(parent),
            "parent_hash": parent_hash,
            "sources": [
                {
                    "name": each,
                    "manifest": manifests[each],
                    "band": {"log_snr_min": band.log_snr_min, "log_snr_max": band.log_snr_max},
                    "weight": 1.0,
                }
                for each, band in (("content", split.content), ("style", split.style))
            ],
            "cache_dir": str(tmp_path / "cache"),
            "steps": 6,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "checkpoint_every": 2,
            "validate_every": 3,
            "sample_every": 3,
            "sample_prompts": [{"prompt": "a cat", "seed": 1}],
            "sample_steps": 2,
            "seed": 7,
            "num_threads": 1,
            "device": "cpu",
            **changes,
        }
        (folder / "run.json").write_text(json.dumps(settings))
        return folder

    return make


@pytest.fixture
def make_pair_run(make_run: MakeRun, tmp_path: Path) -> MakeRun:
    """A run of six pairs over all noise levels: each square preferred over one of another colour."""
    data = tmp_path / "pairs"
    data.mkdir()
    write_manifest(data, "style", 12)
    items = [json.loads(line) for line in (data / "style.jsonl").read_text().splitlines()]
    pairs = [
        {**first, "rejected": second["image"], "rejected_sha256": second["sha256"]}
        for first, second in zip(items[:6], items[6:], strict=True)
    ]
    manifest = data / "pairs.jsonl"
    manifest.write_text("\n".join(json.dumps(pair) for pair in pairs))

    def make(name: str = "run", **changes: Any) -> Path:
        sources = [{"name": "preference", "manifest": str(manifest), "band": {}, "weight": 1.0}]
        return make_run(name, **{"objective": "dpo", "sources": sources, "caption_dropout": 0.0, **changes})

    return make
