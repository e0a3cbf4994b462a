"""A small network that says which look an image has, for measuring only: it is trained anew each time, in a minute."""

import itertools
from collections.abc import Sequence
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from demo.looks import LOOKS
from demo.renders import on_background, render_set, to_rgba
from demo.scenes import Scene
from demo.world import load_subjects

SEED = 4242
SIDE = 64
RENDERS, STEPS, BATCH = 1500, 500, 64
RATE = 4e-3


class LookClassifier(nn.Module):
    """RGB on grey and alpha, [N, 4, 64, 64], to one score a look."""

    def __init__(self) -> None:
        super().__init__()
        widths = (4, 16, 32, 48)
        self.body = nn.Sequential(
            *(
                layer
                for before, after in itertools.pairwise(widths)
                for layer in (nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(4, after), nn.SiLU())
            )
        )
        self.head = nn.Linear(2 * widths[-1], len(LOOKS))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        features = self.body(pictures)
        # A border is a small part of a picture: its strongest trace counts as well as the average.
        return self.head(torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1))

    def name_looks(self, images: Sequence[Image.Image]) -> list[int]:
        """The index of each image's look."""
        pixels = np.stack([np.asarray(image.convert("RGBA")).transpose(2, 0, 1) for image in images])
        with torch.no_grad():
            return self(_inputs(torch.from_numpy(pixels))).argmax(dim=1).tolist()


def train_look_classifier(seed: int = SEED) -> LookClassifier:
    """Train on renders of random subjects and pairs; the same seed gives the same network on the same machine."""
    rng = Random(seed)
    count = len(load_subjects())
    scenes = [
        Scene(tuple(rng.sample(range(count), 2 if n % 4 == 0 else 1)), rng.randrange(len(LOOKS)))
        for n in range(RENDERS)
    ]
    renders = render_set(scenes, seed=seed)
    pictures, looks = _inputs(renders.pixels), torch.tensor([scene.look for scene in scenes])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LookClassifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(seed + step)
        rows = torch.randint(len(pictures), (BATCH,), generator=generator)
        # Drawings are softer and noisier than renders: neither may decide.
        batch = pictures[rows]
        soft = functional.interpolate(functional.avg_pool2d(batch, 2), scale_factor=2, mode="bilinear")
        batch = batch.lerp(soft, torch.rand((BATCH, 1, 1, 1), generator=generator))
        batch = batch + 0.04 * torch.randn(batch.shape, generator=generator)
        loss = functional.cross_entropy(model(batch), looks[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def _inputs(pixels: torch.Tensor) -> torch.Tensor:
    rgba = to_rgba(pixels)
    seen = torch.cat([on_background(rgba, 0.5), rgba[:, 3:]], dim=1)
    return functional.interpolate(seen, size=(SIDE, SIDE), mode="area")
