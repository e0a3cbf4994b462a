"""How a simulated rater looks at a sticker: at its pixels, and, where torch is installed, with the demo's CLIP model."""

import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from generation.engine.importing import uncollected

BORDER_PIXELS = 5  # The window of the erosion: a ring two pixels wide inside the silhouette.
WHITE = 200  # Of 255, in each of red, green and blue.


def die_cut_share(image: Image.Image) -> float:
    """How much of the silhouette's rim is white: 1 for a die-cut sticker with its border, about 0 for a coloured subject
    without one; 0 where there is no silhouette."""
    rgba = image.convert("RGBA")
    solid = rgba.getchannel("A").point(lambda alpha: 255 if alpha > 200 else 0)
    inner = solid.filter(ImageFilter.MinFilter(BORDER_PIXELS))
    rim = (np.asarray(solid) > 0) & (np.asarray(inner) == 0)
    if rim.sum() < 20:
        return 0.0
    pixels = np.asarray(rgba)[rim][:, :3]
    return float((pixels.min(axis=1) >= WHITE).mean())


def cover(image: Image.Image) -> float:
    """The share of the picture that is opaque, 0 to 1."""
    return float((np.asarray(image.convert("RGBA").getchannel("A")) > 128).mean())


class Eye:
    """What one simulated rater thinks of images; a few per cent of its answers are slips, so that raters disagree.

    `prompts` are the texts of the world it knows, as raters read them: an image is aligned when its own is among the three
    that CLIP finds nearest. Without torch an image is aligned when it shows a subject of a plausible size.
    """

    SLIPS = 0.04

    def __init__(self, prompts: Sequence[str], clip_folder: Path | None, seed: int) -> None:
        self.prompts = sorted(set(prompts))
        self.clip_folder = clip_folder
        self.random = random.Random(seed)
        self._scorer: Any = None
        self._texts: Any = None

    @property
    def kind(self) -> str:
        return "clip" if self.clip_folder else "pixels"

    def slips(self) -> bool:
        """Whether this answer is a slip."""
        return self.random.random() < self.SLIPS

    def is_aligned(self, image: Image.Image, prompt: str) -> bool:
        """Whether the image shows what the prompt asks for."""
        # An opaque picture may well be a photograph of the right thing; only CLIP can tell.
        if cover(image) < 0.02:
            return False
        if self.clip_folder is None:
            return cover(image) < 0.98
        nearest = self._similarities(image).argsort()[::-1][:3]
        return prompt in {self.prompts[int(index)] for index in nearest}

    def is_house_style(self, image: Image.Image) -> bool:
        """Whether the sticker is die-cut."""
        return die_cut_share(image) > 0.6

    def prefers(self, images: Sequence[Image.Image]) -> int | None:
        """The index of the better of two stickers in the house style, None for a tie."""
        first, second = (die_cut_share(image) if 0.02 < cover(image) < 0.98 else -1.0 for image in images)
        if abs(first - second) < 0.08:
            return None
        return 0 if first > second else 1

    def _similarities(self, image: Image.Image) -> np.ndarray:
        if self._scorer is None:
            with uncollected():
                from generation.engine.clip_score import ClipScorer

            assert self.clip_folder is not None
            self._scorer = ClipScorer(self.clip_folder, device="cpu")
            self._texts = self._scorer.text_embeddings(self.prompts).numpy()
        return np.asarray(self._texts @ self._scorer.image_embeddings([image]).numpy()[0])


def decode(content: bytes) -> Image.Image:
    """The PNG as the rater's browser would show it."""
    return Image.open(io.BytesIO(content), formats=["PNG", "WEBP"]).convert("RGBA")
