"""Images as tensors: read, compared with their hash, turned upright, resized until they cover their shape, the centre cut out."""

import hashlib
import io
import threading
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from generation.engine.images import on_white
from training.engine.manifests import Item
from training.engine.orientation import orientation_of, upright, upright_size
from training.engine.recipe import RunRefused
from training.engine.shapes import Shape, Size, enlargement
from training.engine.shards import MODES, CorpusRefused

# Part of every latent's key: change it whenever `read_image` or `to_pixels` changes.
PREPROCESSING = "white lanczos center upright 1"

# An image that would have more than so many times the area of its shape is not resized whole. Others keep their bits.
MOST_AREAS = 16

# However many threads read images, so many are decoded at once: one of 64 million pixels takes hundreds of megabytes meanwhile.
_decoding = threading.BoundedSemaphore(4)


def read_image(item: Item, shape: Shape) -> Image.Image:
    """RGB: composited on white, resized to cover the shape, centre cut out. Raises `RunRefused` for an image that is missing,
    unreadable or not the one of its sha256."""
    content = _read(item)
    with _decoding:
        return _cover(_decode(item, content, on_white, shape), shape)


def to_pixels(image: Image.Image) -> torch.Tensor:
    """[3, height, width] in -1..1 of what `read_image` returned."""
    return _tensor(image) / 127.5 - 1.0


def read_rgba(item: Item, shape: Shape) -> torch.Tensor:
    """[4, height, width] in 0..1: the same part of the image with its alpha, which is 1 where the file has none.

    Resizing multiplies colours with alpha first, so hidden colours do not bleed into the edge.
    """
    return _tensor(_cover(_decode(item, _read(item), lambda image: image.convert("RGBA"), shape), shape)) / 255.0


def is_opaque(item: Item) -> bool:
    """Whether the image is transparent nowhere."""
    image = _decode(item, _read(item), lambda image: image.convert("RGBA"))
    return image.getchannel("A").getextrema() == (255, 255)


def _read(item: Item) -> bytes:
    try:
        content = item.read()
    except (OSError, ValueError):
        raise RunRefused(f"The image {item.name} cannot be read.") from None
    if hashlib.sha256(content).hexdigest() != item.sha256:
        raise RunRefused(f"The image {item.name} is not the one that was frozen: its hash differs.")
    return content


def _decode(
    item: Item, content: bytes, convert: Callable[[Image.Image], Image.Image], shape: Shape | None = None
) -> Image.Image:
    try:
        opened = Image.open(io.BytesIO(content))
        if opened.mode not in MODES:
            raise RunRefused(f"The image {item.name} has the pixel format {opened.mode}; 8 bits a channel are read.")
        orientation = orientation_of(opened)
        _check_known_size(item, opened.size, orientation, shape)
        return upright(convert(opened), orientation)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise RunRefused(f"The image {item.name} cannot be read.") from None


def _check_known_size(item: Item, stored: Size, orientation: int, shape: Shape | None) -> None:
    """Raise `CorpusRefused` where an image was given its shape by an index that knows it as it lies in its file."""
    if not item.width or shape is None or shape.width == shape.height:
        return
    if (item.width, item.height) == stored != upright_size(stored, orientation):
        raise CorpusRefused(
            f"The image {item.name} is turned when it is shown, and the index of its corpus is of a time when that was "
            "overlooked: its shape is not the image's. Index the corpus anew."
        )


def _cover(image: Image.Image, shape: Shape) -> Image.Image:
    """Resized until it just covers the shape, the centre cut out."""
    if image.size == (shape.width, shape.height):
        return image
    scale = enlargement(image.size, shape)
    width = max(shape.width, round(image.width * scale))
    height = max(shape.height, round(image.height * scale))
    left, top = (width - shape.width) // 2, (height - shape.height) // 2
    if width * height > MOST_AREAS * shape.area:
        # Only the part that is kept: the same but for rounding, and the whole of a strip would take gigabytes.
        across, down = image.width / width, image.height / height
        part = (left * across, top * down, (left + shape.width) * across, (top + shape.height) * down)
        return image.resize((shape.width, shape.height), Image.Resampling.LANCZOS, box=part)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    return image.crop((left, top, left + shape.width, top + shape.height))


def _tensor(image: Image.Image) -> torch.Tensor:
    """[channels, height, width] float32 in 0..255."""
    return torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)
