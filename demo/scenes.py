"""What the renders of the world show, and each as a PNG. Knows no torch: the processes that render need none, and would take
longer to import it than many a build takes to render."""

import io
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from random import Random

from PIL import Image

from demo.looks import LOOKS
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
