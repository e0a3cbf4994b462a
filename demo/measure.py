"""What the demo models can do, on renders and seeds that they were not trained on: `python -m demo.measure [FIGURE ...]`.

Figures: autoencoder, clip, trained, held_out, pairs, speed (all of them by default). Each prints one JSON object.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

import numpy as np
import open_clip
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from torch.nn import functional

from demo.autoencoder import encode_all
from demo.look_classifier import LookClassifier, train_look_classifier
from demo.looks import LOOKS
from demo.renders import RenderSet, on_background, render_set, to_rgba
from demo.scenes import Scene
from demo.world import FORMS, POSES, all_pairs, fill, is_held_out, load_subjects, pair_pool

# Training renders come from another seed.
MEASURE_SEED = 77
STEPS = 20
GUIDANCE = 3.0
PROMPTS, SEEDS = 48, 4
THUMBNAIL = 32
Figures = dict[str, float]
Item = TypeVar("Item")


class Ranker:
    """The demo's CLIP model as a judge of what a picture shows."""

    def __init__(self, folder: Path) -> None:
        name = f"local-dir:{folder}"
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(name)
        self.model.eval()
        self.tokenize = open_clip.get_tokenizer(name)
        self.subjects = self.texts([f"a picture of {subject.name}" for subject in load_subjects()])

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors [N, 128]."""
        with torch.no_grad():
            parts = [self.model.encode_text(self.tokenize(list(part)), normalize=True) for part in _chunks(texts, 256)]
        return torch.cat(parts)

    def embed(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Unit vectors [N, 128] of RGBA images, seen on white."""
        flat = [Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB") for image in images]
        with torch.no_grad():
            parts = [
                self.model.encode_image(torch.stack([self.preprocess(image) for image in part]), normalize=True)
                for part in _chunks(flat, 64)
            ]
        return torch.cat(parts)

    def name_subjects(self, images: Sequence[Image.Image]) -> list[int]:
        """The index of the subject whose caption is nearest to each image."""
        return (self.embed(images) @ self.subjects.T).argmax(dim=1).tolist()

    def name_pairs(self, images: Sequence[Image.Image]) -> list[frozenset[int]]:
        """The two subjects, of all pairs that the world can show, whose caption is nearest to each image."""
        names = [subject.name for subject in load_subjects()]
        pairs = [(a, b) for a in pair_pool() for b in pair_pool() if a != b]
        seen = self.embed(images) @ self.texts([f"a picture of {names[a]} and {names[b]}" for a, b in pairs]).T
        return [frozenset(pairs[index]) for index in seen.argmax(dim=1).tolist()]


class NearestRender:
    """The render most like a picture, pixel by pixel: a judge that owes nothing to what was trained.

    It knows every subject in the poses that the denoiser was taught. Of a photograph, whose background is anybody's guess,
    only the place counts where the subject would be.
    """

    def __init__(self, poses: int = len(POSES)) -> None:
        self.poses = poses
        self._known_looks: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def name_subjects(self, images: Sequence[Image.Image], looks: Sequence[int]) -> list[int]:
        """The subject whose render in the asked look has the least squared difference, shifted by up to 2 of 32 px."""
        return [self._name(image, look) for image, look in zip(images, looks, strict=True)]

    def _name(self, image: Image.Image, look: int) -> int:
        known, weight = self._known(look)
        pixels = torch.from_numpy(np.asarray(image.convert("RGBA")).transpose(2, 0, 1).copy())[None]
        padded = functional.pad(_thumbnails(pixels), (2, 2, 2, 2), mode="replicate")[0]
        least = torch.full((len(known),), torch.inf)
        for down in range(5):
            for across in range(5):
                moved = padded[:, down : down + THUMBNAIL, across : across + THUMBNAIL]
                error = ((known - moved).square() * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))
                least = torch.minimum(least, error)
        return int(least.argmin()) % len(load_subjects())

    def _known(self, look: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(thumbnails, the weight of their pixels), one of each pose and subject."""
        if look not in self._known_looks:
            thumbnails = self._render(look)
            weight = torch.ones_like(thumbnails[:, :1])
            if LOOKS[look] == "photographic":
                weight = self._render(LOOKS.index("plain"))[:, 3:] + 1e-3
            self._known_looks[look] = thumbnails, weight
        return self._known_looks[look]

    def _render(self, look: int) -> torch.Tensor:
        scenes = [Scene((i,), look, pose) for pose in range(self.poses) for i in range(len(load_subjects()))]
        return _thumbnails(render_set(scenes, seed=MEASURE_SEED).pixels)


def _thumbnails(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 [N, 4, H, W] as RGB on grey and alpha, [N, 4, 32, 32]."""
    rgba = to_rgba(pixels)
    seen = torch.cat([on_background(rgba, 0.5), rgba[:, 3:]], dim=1)
    return functional.interpolate(seen, size=(THUMBNAIL, THUMBNAIL), mode="area")


@dataclass(frozen=True)
class Request:
    """One prompt of a drawing test and what it should show."""

    prompt: str
    scene: Scene


def single_requests(*, held_out: bool, count: int = PROMPTS) -> list[Request]:
    """Prompts for subjects over the whole list and all looks: pairs of subject and look that were trained on, or not."""
    rng = Random(f"measure/{held_out}")
    subjects = load_subjects()
    fitting = [
        Scene((index,), look)
        for index, subject in enumerate(subjects) for look in range(len(LOOKS))
        if is_held_out(subject, LOOKS[look]) == held_out
    ]  # fmt: skip
    # Equally many of each look, as far as they exist there: the base look holds nothing out.
    by_look = [[scene for scene in fitting if scene.look == look] for look in range(len(LOOKS))]
    by_look = [rng.sample(scenes, len(scenes)) for scenes in by_look if scenes]
    chosen = [by_look[n % len(by_look)][n // len(by_look)] for n in range(count)]
    return [Request(fill(FORMS[LOOKS[s.look]][0], subjects[s.subjects[0]].name), s) for s in chosen]


def pair_requests(count: int = 24) -> list[Request]:
    """Prompts for two subjects that were never trained on together."""
    rng = Random("measure/pairs")
    names = [subject.name for subject in load_subjects()]
    chosen = rng.sample(all_pairs(held_out=True), count)
    return [
        Request(fill(FORMS[LOOKS[n % len(LOOKS)]][0], f"{names[a]} and {names[b]}"), Scene((a, b), n % len(LOOKS)))
        for n, (a, b) in enumerate(chosen)
    ]


def draw(
    pipeline: StableDiffusionPipeline, prompts: list[str], seeds: Sequence[int], batch: int = 8
) -> list[Image.Image]:
    """One RGBA image for each prompt and its seed."""
    images: list[Image.Image] = []
    for start in range(0, len(prompts), batch):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + batch]]
        part = prompts[start : start + batch]
        images += pipeline(part, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generators).images
    return images


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The committed pipeline, in float32 for a CPU."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def measure_autoencoder(vae: AutoencoderKL, renders: RenderSet) -> Figures:
    """PSNR on white in dB, and the intersection over union of the alphas cut at one half, of what has transparency."""
    with torch.no_grad():
        mean, _ = encode_all(vae, renders.pixels, device="cpu")
        decoded = torch.cat([vae.decode(part).sample for part in mean.split(32)]).div(2).add(0.5).clamp(0, 1)
    true = to_rgba(renders.pixels)
    error = (on_background(decoded) - on_background(true)).square().mean(dim=(1, 2, 3))
    mine, theirs = decoded[:, 3] > 0.5, true[:, 3] > 0.5
    overlap = (mine & theirs).sum(dim=(1, 2)) / (mine | theirs).sum(dim=(1, 2))
    cut_out = torch.tensor([scene.look != 0 for scene in renders.scenes])
    return {
        "psnr_db": float((-10 * error.log10()).mean()),
        "alpha_iou": float(overlap[cut_out].mean()),
        "renders": len(renders.scenes),
    }


def measure_ranker(ranker: Ranker, renders: RenderSet) -> Figures:
    """The share of renders whose subject the CLIP model names rightly."""
    named = ranker.name_subjects(_images(renders))
    right = [name == scene.subjects[0] for name, scene in zip(named, renders.scenes, strict=True)]
    return {"subject": float(np.mean(right)), "renders": len(right)}


def _images(renders: RenderSet) -> list[Image.Image]:
    return [Image.fromarray(pixels.numpy().transpose(1, 2, 0), "RGBA") for pixels in renders.pixels]


def measure_singles(
    pipeline: StableDiffusionPipeline,
    ranker: Ranker,
    classifier: LookClassifier,
    requests: list[Request],
    seeds: int,
    nearest: NearestRender | None = None,
) -> tuple[Figures, list[Image.Image]]:
    """Shares of drawings with the right subject, by CLIP and, where it is given, by the nearest render, and with the
    right look."""
    asked = [request for request in requests for _ in range(seeds)]
    images = draw(pipeline, [request.prompt for request in asked], list(range(len(asked))))
    subjects, looks = [request.scene.subjects[0] for request in asked], [request.scene.look for request in asked]
    figures = {
        "subject": _share(ranker.name_subjects(images), subjects),
        "look": _share(classifier.name_looks(images), looks),
        "images": len(images),
    }
    if nearest is not None:
        figures["subject_by_nearest_render"] = _share(nearest.name_subjects(images, looks), subjects)
    return figures, images


def measure_pairs(
    pipeline: StableDiffusionPipeline, ranker: Ranker, requests: list[Request], seeds: int
) -> tuple[Figures, list[Image.Image]]:
    """The share of drawings in which the CLIP model finds the two subjects that were asked for."""
    asked = [request for request in requests for _ in range(seeds)]
    images = draw(pipeline, [request.prompt for request in asked], list(range(len(asked))))
    wanted = [frozenset(request.scene.subjects) for request in asked]
    return {"both_subjects": _share(ranker.name_pairs(images), wanted), "images": len(images)}, images


def _share(seen: Sequence[Item], wanted: Sequence[Item]) -> float:
    return float(np.mean([a == b for a, b in zip(seen, wanted, strict=True)]))


def measure_speed(pipeline: StableDiffusionPipeline) -> Figures:
    """Seconds an image, the median of three, at batch 1 and 8, with the machine's threads and load."""
    prompts = [f"die-cut sticker of {subject.name}" for subject in load_subjects()[:8]]
    figures: Figures = {}
    for batch in (1, 8):
        seconds = []
        for _ in range(4):
            started = time.perf_counter()
            draw(pipeline, prompts[:batch], range(batch))
            seconds.append((time.perf_counter() - started) / batch)
        # The first call warms up.
        figures[f"seconds_batch_{batch}"] = statistics.median(seconds[1:])
    return figures | {"threads": torch.get_num_threads(), "load": os.getloadavg()[0]}


def save_sheet(images: Sequence[Image.Image], file: Path, columns: int = 8) -> None:
    """All images on one light blue sheet, on which a white border shows."""
    side = images[0].width
    sheet = Image.new("RGBA", (columns * side, -(-len(images) // columns) * side), (200, 215, 235, 255))
    for place, image in enumerate(images):
        sheet.alpha_composite(image, (place % columns * side, place // columns * side))
    sheet.convert("RGB").save(file)


def wall_prompts(count: int = 48) -> list[str]:
    """Random subjects in the die-cut look that were trained on."""
    rng = Random("wall")
    fitting = [subject for subject in load_subjects() if not is_held_out(subject, "die-cut")]
    return [f"die-cut sticker of {subject.name}" for subject in rng.sample(fitting, count)]


def measure(folder: Path, names: Sequence[str], sheets: Path | None = None) -> dict[str, Figures]:
    """The named figures of the models under `folder`; drawings go to `sheets` as PNG files where it is given."""
    pipeline, ranker = load_pipeline(folder / "model"), Ranker(folder / "clip")
    classifier = train_look_classifier() if {"trained", "held_out"} & set(names) else None
    nearest = NearestRender()
    spread = Random("renders").sample(
        [Scene((i,), look) for i in range(len(load_subjects())) for look in range(len(LOOKS))], 500
    )

    def drawn(name: str, result: tuple[Figures, list[Image.Image]]) -> Figures:
        figures, images = result
        if sheets is not None:
            save_sheet(images, sheets / f"{name}.png", columns=16)
        return figures

    def singles(name: str, *, held_out: bool) -> Figures:
        assert classifier is not None
        requests = single_requests(held_out=held_out)
        return drawn(name, measure_singles(pipeline, ranker, classifier, requests, SEEDS, nearest))

    known: dict[str, Callable[[], Figures]] = {
        "autoencoder": lambda: measure_autoencoder(pipeline.vae, render_set(spread, seed=MEASURE_SEED)),
        "clip": lambda: measure_ranker(ranker, render_set(spread, seed=MEASURE_SEED)),
        "trained": lambda: singles("trained", held_out=False),
        "held_out": lambda: singles("held_out", held_out=True),
        "pairs": lambda: drawn("pairs", measure_pairs(pipeline, ranker, pair_requests(), SEEDS)),
        "speed": lambda: measure_speed(pipeline),
    }
    results = {}
    for name in names:
        results[name] = known[name]()
        print(json.dumps({"figure": name, **results[name]}), flush=True)
    return results


FIGURES = ("autoencoder", "clip", "trained", "held_out", "pairs", "speed")


def _chunks(values: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", choices=[*FIGURES, []], default=list(FIGURES), metavar="FIGURE")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="where model/ and clip/ are")
    parser.add_argument("--sheets", type=Path, help="a folder for sheets of the drawings")
    arguments = parser.parse_args()
    measure(arguments.folder, arguments.figures or FIGURES, arguments.sheets)


if __name__ == "__main__":
    main()
