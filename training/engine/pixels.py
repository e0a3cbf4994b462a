"""Images as tensors: read, compared with their hash, resized until they cover their shape, the centre cut out."""

import hashlib
import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from generation.engine.images import on_white
from training.engine.manifests import Item
from training.engine.recipe import RunRefused
from training.engine.shapes import Shape, enlargement

# Part of every latent's key: change it whenever `read_pixels` changes.
PREPROCESSING = "white lanczos center 1"


def read_pixels(item: Item, shape: Shape) -> torch.Tensor:
    """[3, height, width] in -1..1: composited on white, resized to cover the shape, centre cut out. Raises `RunRefused` for
    an image that is missing, unreadable or not the one of its sha256."""
    return to_pixels(read_image(item, shape))


def read_image(item: Item, shape: Shape) -> Image.Image:
    """The same as an RGB image."""
    return _cover(_open(item, on_white), shape)


def to_pixels(image: Image.Image) -> torch.Tensor:
    """[3, height, width] in -1..1 of what `read_image` returned."""
    return _tensor(image) / 127.5 - 1.0


def read_rgba(item: Item, shape: Shape) -> torch.Tensor:
    """[4, height, width] in 0..1: the same part of the image with its alpha, which is 1 where the file has none.

    Resizing multiplies colours with alpha first, so hidden colours do not bleed into the edge.
    """
    return _tensor(_cover(_open(item, lambda image: image.convert("RGBA")), shape)) / 255.0


def is_opaque(item: Item) -> bool:
    """Whether the image is transparent nowhere."""
    return _open(item, lambda image: image.convert("RGBA")).getchannel("A").getextrema() == (255, 255)


def _open(item: Item, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    try:
        content = item.read()
        if hashlib.sha256(content).hexdigest() != item.sha256:
            raise RunRefused(f"The image {item.name} is not the one that was frozen: its hash differs.")
        return convert(Image.open(io.BytesIO(content)))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise RunRefused(f"The image {item.name} cannot be read.") from None


def _cover(image: Image.Image, shape: Shape) -> Image.Image:
    """Resized until it just covers the shape, the centre cut out."""
    if image.size == (shape.width, shape.height):
        return image
    scale = enlargement(image.size, shape)
    width = max(shape.width, round(image.width * scale))
    height = max(shape.height, round(image.height * scale))
    left, top = (width - shape.width) // 2, (height - shape.height) // 2
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    return image.crop((left, top, left + shape.width, top + shape.height))


def _tensor(image: Image.Image) -> torch.Tensor:
    """[channels, height, width] float32 in 0..255."""
    return torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)
