"""Renders of the whole world as arrays: what the autoencoder, the denoiser and the CLIP model learn from."""

from dataclasses import dataclass
from random import Random

import numpy as np
import torch

from demo.world import LOOKS, SIZE, load_subjects, render


@dataclass(frozen=True)
class RenderSet:
    """N renders: `pixels` uint8 [N, 4, 64, 64] (RGBA); `subjects` and `looks` int64 [N] point into the world's lists."""

    pixels: torch.Tensor
    subjects: torch.Tensor
    looks: torch.Tensor


def render_set(*, variants: int, seed: int) -> RenderSet:
    """Each subject in each look, `variants` times, each time placed otherwise. The same seed gives the same pixels."""
    subjects = load_subjects()
    order = [(v, s, k) for v in range(variants) for s in range(len(subjects)) for k in range(len(LOOKS))]
    pixels = np.empty((len(order), 4, SIZE, SIZE), dtype=np.uint8)
    for row, (variant, subject, look) in enumerate(order):
        rng = Random(f"{seed}/{variant}/{subject}/{look}")
        image = render(subjects[subject], LOOKS[look], rng)
        pixels[row] = np.asarray(image).transpose(2, 0, 1)
    return RenderSet(
        torch.from_numpy(pixels),
        torch.tensor([subject for _, subject, _ in order]),
        torch.tensor([look for _, _, look in order]),
    )


def to_rgba(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 [N, 4, H, W] as float32 in [0, 1], not premultiplied."""
    return pixels.float() / 255


def on_background(rgba: torch.Tensor, background: torch.Tensor | float = 1.0) -> torch.Tensor:
    """RGBA in [0, 1] composited on a colour ([N, 3, 1, 1] or a grey level): RGB in [0, 1]."""
    alpha = rgba[:, 3:]
    return rgba[:, :3] * alpha + background * (1 - alpha)
