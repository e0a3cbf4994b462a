"""Images as tensors: how they are resized and what of them is kept."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.engine.manifests import Item
from training.engine.pixels import read_image, read_rgba, to_pixels
from training.engine.recipe import RunRefused
from training.engine.shapes import Shape, enlargement

SHAPE = Shape(64, 48)


def item(folder: Path, image: Image.Image) -> Item:
    path = folder / "a.png"
    image.save(path)
    return Item(path, "a cat", hashlib.sha256(path.read_bytes()).hexdigest())


def noise(size: tuple[int, int], channels: int = 3) -> Image.Image:
    # Not so strong that resizing cuts it off at black or white between its two passes, whose order depends on the sides.
    return Image.fromarray(np.random.default_rng(1).integers(96, 160, (size[1], size[0], channels), dtype=np.uint8))


def middle_of_whole(image: Image.Image, shape: Shape) -> Image.Image:
    """The definition: all of it resized, the middle cut out."""
    scale = enlargement(image.size, shape)
    width, height = (
        max(least, round(side * scale)) for side, least in zip(image.size, (shape.width, shape.height), strict=True)
    )
    left, top = (width - shape.width) // 2, (height - shape.height) // 2
    whole = image.resize((width, height), Image.Resampling.LANCZOS)
    return whole.crop((left, top, left + shape.width, top + shape.height))


@pytest.mark.parametrize("size", [(64, 48), (100, 100), (30, 20), (300, 40), (40, 460)])
def test_ordinary_image_is_resized_whole(tmp_path: Path, size: tuple[int, int]) -> None:
    image = noise(size)
    assert torch.equal(to_pixels(read_image(item(tmp_path, image), SHAPE)), to_pixels(middle_of_whole(image, SHAPE)))


@pytest.mark.parametrize("size", [(5, 301), (7, 2000), (2001, 9), (600, 4)])
def test_of_a_strip_only_what_is_kept_is_resized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    image, clear = noise(size), noise(size, 4)
    expected = [np.asarray(middle_of_whole(each, SHAPE), dtype=int) for each in (image, clear)]
    original = Image.Image.resize

    def resized(self: Image.Image, target: tuple[int, int], *rest: object, **options: object) -> Image.Image:
        assert target == (64, 48)
        return original(self, target, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", resized)
    found = np.asarray(read_image(item(tmp_path, image), SHAPE), dtype=int)
    assert abs(found - expected[0]).max() <= 2
    found = (read_rgba(item(tmp_path, clear), SHAPE) * 255).permute(1, 2, 0).round().int().numpy()
    # Colours are divided by alpha again.
    assert abs(found - expected[1]).max() <= 6


def test_image_of_more_than_8_bits_a_channel_is_refused_as_in_shards(tmp_path: Path) -> None:
    deep = Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16))
    with pytest.raises(RunRefused, match=r"a\.png has the pixel format I;16; 8 bits a channel are read"):
        read_image(item(tmp_path, deep), SHAPE)
    shallow = Image.fromarray(np.full((64, 64), 128, dtype=np.uint8))
    assert read_image(item(tmp_path, shallow), SHAPE).getpixel((0, 0)) == (128, 128, 128)
