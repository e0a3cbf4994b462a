"""Renders of the whole world as files: what the autoencoder, the denoiser and the CLIP model learn from.

A folder of renders holds `images/*.png`, one manifest of JSON lines for each look, as the training engine reads them
({"image", "caption", "sha256"}), and `index.csv`, a line an image: file, look, subject, second subject (or empty).
"""

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image

from demo.looks import LOOKS, SIZE
from demo.scenes import Scene, render_scenes

# Each image is listed under so many captions.
CAPTIONS = 2


@dataclass(frozen=True)
class RenderSet:
    """N renders: `pixels` uint8 [N, 4, 128, 128] (RGBA), and what each shows."""

    pixels: torch.Tensor
    scenes: tuple[Scene, ...]


def write_renders(folder: Path, scenes: list[Scene], *, seed: int, limit: int | None = None) -> None:
    """Make the folder of the scenes' renders, unless it is there already; `index.csv` is written last.

    `limit` takes so many of the scenes, at random: for a look at the whole build in a minute.
    """
    if (folder / "index.csv").exists():
        return
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    if limit is not None and limit < len(scenes):
        scenes = Random(seed).sample(scenes, limit)
    manifests: list[list[str]] = [[] for _ in LOOKS]
    rows = []
    for number, (scene, content) in enumerate(zip(scenes, render_scenes(scenes, seed), strict=True)):
        name = f"images/{number:06d}.png"
        (folder / name).write_bytes(content)
        rows.append([name, LOOKS[scene.look], *scene.subjects])
        for each in range(CAPTIONS):
            caption = scene.caption(Random(f"{seed}/caption/{number}/{each}"))
            line = {"image": name, "caption": caption, "sha256": hashlib.sha256(content).hexdigest()}
            manifests[scene.look].append(json.dumps(line))
        if number % 1000 == 999:
            print(f"renders {number + 1} of {len(scenes)}", flush=True)
    for look, lines in zip(LOOKS, manifests, strict=True):
        if not lines:
            raise ValueError(f"No render is {look}. Take more scenes.")
        (folder / f"{look}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary = folder / "index.tmp"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    temporary.rename(folder / "index.csv")


def load_renders(folder: Path) -> RenderSet:
    """All images of a folder of renders, in memory."""
    with (folder / "index.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    pixels = np.empty((len(rows), 4, SIZE, SIZE), dtype=np.uint8)
    for number, row in enumerate(rows):
        pixels[number] = np.asarray(Image.open(folder / row[0]).convert("RGBA")).transpose(2, 0, 1)
    scenes = tuple(Scene(tuple(int(each) for each in row[2:]), LOOKS.index(row[1])) for row in rows)
    return RenderSet(torch.from_numpy(pixels), scenes)


def render_set(scenes: list[Scene], *, seed: int) -> RenderSet:
    """Scenes rendered into memory. The same seed gives the same pixels."""
    pixels = np.stack(
        [np.asarray(scene.draw(Random(f"{seed}/{n}"))).transpose(2, 0, 1) for n, scene in enumerate(scenes)]
    )
    return RenderSet(torch.from_numpy(pixels), tuple(scenes))


def to_rgba(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 [N, 4, H, W] as float32 in [0, 1], not premultiplied."""
    return pixels.float() / 255


def on_background(rgba: torch.Tensor, background: torch.Tensor | float = 1.0) -> torch.Tensor:
    """RGBA in [0, 1] composited on a colour ([N, 3, 1, 1] or a grey level): RGB in [0, 1]."""
    alpha = rgba[:, 3:]
    return rgba[:, :3] * alpha + background * (1 - alpha)
