"""The cache of latents and text embeddings, shared by all runs, addressed by content.

A latent's key is a hash of the image's bytes, the preprocessing and the VAE's weights; a caption's of the text and the
text encoder's weights: a stale hit is impossible. What is kept is the posterior's mean and standard deviation, not one
frozen sample, so that training still draws a fresh latent each time. Entries lie in safetensors shards that are named
by their own hash. Every image is encoded alone: its values do not depend on which others were missing from the cache.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.nn import functional

from generation.engine.families import STABLE_DIFFUSION_XL
from generation.engine.folders import Manifest, hash_file, hash_manifest
from generation.engine.images import on_white
from generation.engine.pipeline import Pipeline
from training.engine.draws import Draw
from training.engine.manifests import Item
from training.engine.recipe import RunRefused
from training.engine.run_files import write_bytes
from training.engine.shapes import Shape, enlargement
from training.engine.texts import TEXT_PARTS, encode_text, text_length, text_way

# Part of every latent's key: change it whenever `read_pixels` changes.
PREPROCESSING = "white lanczos center 1"
SHARD_ENTRIES = 256

Report = Callable[[int, int], None]


class ShardStore:
    """Tensors by key in a folder of safetensors files, each named by the SHA-256 of its bytes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._where: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            self._open(path)

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def __getitem__(self, key: str) -> torch.Tensor:
        """The tensor, read through the page cache: a large set costs no process memory."""
        return self._where[key].get_tensor(key)

    def add(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write one shard, atomically; the same tensors are the same file."""
        content = save({key: tensors[key].contiguous() for key in sorted(tensors)})
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        write_bytes(path, content)
        self._open(path)

    def _open(self, path: Path) -> None:
        try:
            if hash_file(path) != path.stem:
                raise ValueError(path.name)
            shard = safe_open(path, framework="pt")
            self._where.update((key, shard) for key in shard.keys())  # noqa: SIM118 - a shard is no mapping.
        except (OSError, ValueError, SafetensorError):
            # Damaged: what it held is computed again.
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Encoded:
    """The cached inputs of a run: `latents[key]` is [2, C, H, W] (mean, std), `text(key)` is [L, D], both float32, and
    `pooled(key)` is [P] where the model takes the text as one vector too.

    `shapes` are those of the images, and of both images of a pair: a latent's H and W are the shape's, divided by the VAE's
    factor. `rejected_keys` are the latents of the rejected images where the sources are pairs. `text_length` is L where the
    store leaves out what is zero at the end. `latent_factor` is how many pixels a side of a latent stands for, where the
    denoiser is told the image's size.
    """

    latents: ShardStore
    texts: ShardStore
    shapes: tuple[Sequence[Shape], ...]
    latent_keys: tuple[tuple[str, ...], ...]
    text_keys: tuple[tuple[str, ...], ...]
    empty_text_key: str
    rejected_keys: tuple[tuple[str, ...], ...] = ()
    text_length: int = 0
    latent_factor: int = 0

    @property
    def has_pooled(self) -> bool:
        return self.text_length > 0

    def shape_of(self, draw: Draw) -> Shape:
        return self.shapes[draw.source][draw.image]

    def text(self, key: str) -> torch.Tensor:
        stored = self.texts[key]
        return functional.pad(stored, (0, 0, 0, self.text_length - len(stored))) if self.text_length else stored

    def pooled(self, key: str) -> torch.Tensor:
        return self.texts[_pooled_key(key)]


def encode_sources(
    pipeline: Pipeline,
    parent_manifest: Manifest,
    sources: Sequence[Sequence[Item]],
    cache_dir: Path,
    report: Report = lambda done, total: None,
    *,
    with_captions: bool = True,
    shapes: Sequence[Sequence[Shape]] | None = None,
) -> Encoded:
    """Make sure that every image and caption is in the cache; a decoder needs no captions. Without `shapes`, one for each
    item, all images are squares of the model's own side. `report(done, total)` is called after each new entry and may
    raise to stop. Raises `RunRefused` for an image that is missing, unreadable or not the one of its sha256."""
    vae_hash = _part_hash(parent_manifest, "vae/")
    text_hash = _part_hash(parent_manifest, *TEXT_PARTS)
    if way := text_way(pipeline):
        text_hash = _key(text_hash, *way)
    latents = ShardStore(cache_dir / "latents")
    texts = ShardStore(cache_dir / "texts")
    shapes = shapes or [[Shape(pipeline.resolution, pipeline.resolution)] * len(items) for items in sources]
    losers = [[item.loser for item in items if item.rejected is not None] for items in sources]
    images: dict[str, tuple[Item, Shape]] = {}

    def keys_of(items: Sequence[Item], fits: Sequence[Shape]) -> tuple[str, ...]:
        keys = tuple(_latent_key(item.sha256, shape, vae_hash) for item, shape in zip(items, fits, strict=True))
        images.update(zip(keys, zip(items, fits, strict=True), strict=True))
        return keys

    latent_keys = tuple(map(keys_of, sources, shapes))
    # All of a source's items are pairs, or none is.
    rejected_keys = tuple(keys_of(items, fits[: len(items)]) for items, fits in zip(losers, shapes, strict=True))
    texts_wanted = ["", *_captions(sources)] if with_captions else []
    captions = {_text_key(caption, text_hash): caption for caption in texts_wanted}
    missing_images = [key for key in images if key not in latents]
    missing_captions = [key for key in captions if key not in texts]
    total = len(missing_images) + len(missing_captions)
    done = _fill(texts, missing_captions, lambda key: _text_entries(pipeline, key, captions[key]), report, 0, total)
    _fill(
        latents,
        missing_images,
        lambda key: {key: encode_image(pipeline, read_pixels(*images[key]))},
        report,
        done,
        total,
    )
    return Encoded(
        latents=latents,
        texts=texts,
        shapes=tuple(shapes),
        latent_keys=latent_keys,
        rejected_keys=rejected_keys,
        text_keys=tuple(tuple(_text_key(item.caption, text_hash) for item in items) for items in sources),
        empty_text_key=_text_key("", text_hash),
        text_length=text_length(pipeline),
        latent_factor=pipeline.pipe.vae_scale_factor if pipeline.report.pipeline == STABLE_DIFFUSION_XL.pipeline else 0,
    )


def read_pixels(item: Item, shape: Shape) -> torch.Tensor:
    """[3, height, width] in -1..1: composited on white, resized to cover the shape, centre cut out."""
    return _fit(_open(item, on_white), shape) / 127.5 - 1.0


def read_rgba(item: Item, shape: Shape) -> torch.Tensor:
    """[4, height, width] in 0..1: the same part of the image with its alpha, which is 1 where the file has none.

    Resizing multiplies colours with alpha first, so hidden colours do not bleed into the edge.
    """
    return _fit(_open(item, lambda image: image.convert("RGBA")), shape) / 255.0


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


def _fit(image: Image.Image, shape: Shape) -> torch.Tensor:
    """[channels, height, width] float32 in 0..255: resized until it just covers the shape, the centre cut out."""
    if image.size != (shape.width, shape.height):
        scale = enlargement(image.size, shape)
        width = max(shape.width, round(image.width * scale))
        height = max(shape.height, round(image.height * scale))
        left, top = (width - shape.width) // 2, (height - shape.height) // 2
        image = image.resize((width, height), Image.Resampling.LANCZOS)
        image = image.crop((left, top, left + shape.width, top + shape.height))
    return torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)


def encode_image(pipeline: Pipeline, pixels: torch.Tensor) -> torch.Tensor:
    """[2, C, H, W] float32 on the CPU: mean and standard deviation of the latent posterior, not yet scaled."""
    with torch.inference_mode():
        posterior = pipeline.pipe.vae.encode(pixels[None].to(pipeline.device, pipeline.dtype)).latent_dist
        return torch.stack([posterior.mean[0], posterior.std[0]]).float().cpu()


def _text_entries(pipeline: Pipeline, key: str, caption: str) -> dict[str, torch.Tensor]:
    text, pooled = encode_text(pipeline, caption)
    return {key: text} if pooled is None else {key: text, _pooled_key(key): pooled}


def _fill(
    store: ShardStore,
    keys: Sequence[str],
    encode: Callable[[str], Mapping[str, torch.Tensor]],
    report: Report,
    done: int,
    total: int,
) -> int:
    for start in range(0, len(keys), SHARD_ENTRIES):
        shard: dict[str, torch.Tensor] = {}
        for key in keys[start : start + SHARD_ENTRIES]:
            shard.update(encode(key))
            done += 1
            report(done, total)
        store.add(shard)
    return done


def _captions(sources: Iterable[Iterable[Item]]) -> list[str]:
    return [item.caption for items in sources for item in items]


def _part_hash(manifest: Manifest, *prefixes: str) -> str:
    return hash_manifest({name: entry for name, entry in manifest.items() if name.startswith(prefixes)})


def _latent_key(image_sha256: str, shape: Shape, vae_hash: str) -> str:
    # A square is named by one number, as it was when there was nothing else.
    size = shape.width if shape.width == shape.height else f"{shape.width}x{shape.height}"
    return _key(image_sha256, PREPROCESSING, size, vae_hash)


def _text_key(caption: str, text_hash: str) -> str:
    return _key(caption, text_hash)


def _pooled_key(text_key: str) -> str:
    return _key(text_key, "pooled")


def _key(*parts: str | int) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
