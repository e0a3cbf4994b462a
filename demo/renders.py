"""Renders of the whole world as files: what the autoencoder, the denoiser and the CLIP model learn from.

A folder of renders holds `images/*.png`, one manifest of JSON lines for each look, as the training engine reads them
({"image", "caption", "sha256"}), and `index.csv`, a line an image: file, look, subject, second subject (or empty).
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image

from demo.looks import LOOKS, SIZE
from demo.world import (
    FORMS,
    NO_LOOK,
    POSES,
    all_pairs,
    fill,
    is_held_out,
    join_names,
    load_subjects,
    look_form,
    render,
    render_pair,
    vary_name,
)

# Each image is listed under so many captions.
CAPTIONS = 2
# Of the five looks, those that one pair of subjects is drawn in.
LOOKS_OF_A_PAIR = 2


@dataclass(frozen=True)
class Scene:
    """What one render shows: indices of one subject, or of two side by side, and of the look.

    `pose` is an index of POSES, or None for a place, scale and turn at random.
    """

    subjects: tuple[int, ...]
    look: int
    pose: int | None = None

    def draw(self, rng: Random | None) -> Image.Image:
        shown = [load_subjects()[index] for index in self.subjects]
        if len(shown) == 1:
            return render(shown[0], LOOKS[self.look], rng, pose=self.pose)
        return render_pair(shown[0], shown[1], LOOKS[self.look], rng, pose=self.pose)

    def caption(self, rng: Random) -> str:
        """A caption of the world's own mixture: the base look mostly goes unnamed."""
        return self._write(look_form(LOOKS[self.look], rng), rng)

    def with_look(self, rng: Random) -> str:
        """A caption that names the look."""
        return self._write(rng.choice(FORMS[LOOKS[self.look]]), rng)

    def without_look(self, rng: Random) -> str:
        """A caption that says nothing of the look."""
        return self._write(rng.choice(NO_LOOK), rng)

    def _write(self, form: str, rng: Random) -> str:
        shown = [load_subjects()[index] for index in self.subjects]
        name = vary_name(shown[0], rng) if len(shown) == 1 else join_names(shown[0], shown[1], rng)
        return fill(form, name)


@dataclass(frozen=True)
class RenderSet:
    """N renders: `pixels` uint8 [N, 4, 128, 128] (RGBA), and what each shows."""

    pixels: torch.Tensor
    scenes: tuple[Scene, ...]


def training_scenes(variants: int) -> list[Scene]:
    """Every subject in every look that is not held out, `variants` times, and the pairs of subjects, each in two looks
    and either order."""
    subjects = load_subjects()
    scenes = [
        Scene((index,), look)
        for _ in range(variants) for index, subject in enumerate(subjects) for look in range(len(LOOKS))
        if not is_held_out(subject, LOOKS[look])
    ]  # fmt: skip
    for pair in all_pairs(held_out=False):
        rng = Random(f"{pair}")
        for look in rng.sample(range(len(LOOKS)), LOOKS_OF_A_PAIR):
            scenes.append(Scene(pair if rng.random() < 0.5 else pair[::-1], look))
    return scenes


def posed_scenes() -> list[Scene]:
    """The same subjects, looks and pairs, each single one in every pose, and on two backgrounds where it has one."""
    singles = {(scene.subjects, scene.look) for scene in training_scenes(1) if len(scene.subjects) == 1}
    scenes = [
        Scene(subjects, look, pose)
        for subjects, look in sorted(singles) for pose in range(len(POSES)) for _ in range(2 if look == 0 else 1)
    ]  # fmt: skip
    pairs = [scene for scene in training_scenes(1) if len(scene.subjects) == 2]
    return scenes + [replace(scene, pose=number % len(POSES)) for number, scene in enumerate(pairs)]


def render_scenes(scenes: list[Scene], seed: int, workers: int = 2) -> Iterator[bytes]:
    """The PNG of each scene, in order, placed and lit by (`seed`, its number)."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_png, scenes, (f"{seed}/{number}" for number in range(len(scenes))), chunksize=64)


def _png(scene: Scene, key: str) -> bytes:
    out = io.BytesIO()
    scene.draw(Random(key)).save(out, "PNG", compress_level=1)
    return out.getvalue()


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
