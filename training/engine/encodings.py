"""What a parent makes of images and captions before it is trained: latents and text embeddings, each with its key.

A latent's key is a hash of the image's bytes, the preprocessing and the VAE's weights; a caption's of the text and the
text encoder's weights: a stale hit is impossible. Of a latent the posterior's mean and standard deviation are kept, not one
frozen sample, so that training still draws a fresh latent each time. Every image and every caption is encoded alone and in
full precision: its values depend neither on the others nor on when it is encoded.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from generation.engine.folders import Manifest, hash_manifest
from generation.engine.pipeline import Pipeline
from training.engine.pixels import PREPROCESSING
from training.engine.shapes import Shape
from training.engine.texts import TEXT_PARTS, encode_text, text_way

Entries = dict[str, torch.Tensor]


@dataclass
class Encoder:
    """A parent's VAE and text encoders, and the hashes of their weights."""

    pipeline: Pipeline
    vae_hash: str
    text_hash: str

    @classmethod
    def of(cls, pipeline: Pipeline, parent_manifest: Manifest) -> "Encoder":
        text_hash = _part_hash(parent_manifest, *TEXT_PARTS)
        if way := text_way(pipeline):
            text_hash = _key(text_hash, *way)
        return cls(pipeline, _part_hash(parent_manifest, "vae/"), text_hash)

    def latent_key(self, image_sha256: str, shape: Shape) -> str:
        return latent_key(image_sha256, shape, self.vae_hash)

    def text_key(self, caption: str) -> str:
        return _key(caption, self.text_hash)

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """[2, C, H, W] float32 on the CPU: mean and standard deviation of the latent posterior, not yet scaled. `pixels` are
        [3, height, width] in -1..1."""
        return self.encode_images([pixels])[0]

    def encode_images(self, pixels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The same of several images, each encoded alone; a GPU is waited for once, after the last."""
        device, dtype, vae = self.pipeline.device, self.pipeline.dtype, self.pipeline.pipe.vae
        if device.type == "cuda":
            # From ordinary memory each copy would wait for what the GPU does.
            pixels = [each.pin_memory() for each in pixels]
        images = [each.to(device, dtype, non_blocking=True) for each in pixels]
        with self._alone():
            posteriors = [vae.encode(each[None]).latent_dist for each in images]
            latents = [torch.stack([each.mean[0], each.std[0]]).float() for each in posteriors]
        return [each.cpu().clone() for each in latents]

    def encode_caption(self, caption: str) -> Entries:
        """The caption's sequence and, where the denoiser takes one, its vector, by their keys."""
        with self._alone():
            text, pooled = encode_text(self.pipeline, caption)
        key = self.text_key(caption)
        return {key: text.clone()} if pooled is None else {key: text.clone(), pooled_key(key): pooled.clone()}

    def _alone(self) -> torch.autocast:
        """Full precision, also in the middle of a step that computes in half of it."""
        return torch.autocast(self.pipeline.device.type, enabled=False)


def latent_key(image_sha256: str, shape: Shape, vae_hash: str) -> str:
    # A square is named by one number, as it was when there was nothing else.
    size = shape.width if shape.width == shape.height else f"{shape.width}x{shape.height}"
    return _key(image_sha256, PREPROCESSING, size, vae_hash)


def pooled_key(text_key: str) -> str:
    return _key(text_key, "pooled")


def _part_hash(manifest: Manifest, *prefixes: str) -> str:
    return hash_manifest({name: entry for name, entry in manifest.items() if name.startswith(prefixes)})


def _key(*parts: str | int) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
