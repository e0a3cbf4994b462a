"""The encoder of a model's VAE by the hash of its weights: latents mean the same to every decoder that shares it.

Reads safetensors files as bytes, without torch.
"""

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from generation.engine.folders import READ_BYTES, FolderRefused
from generation.engine.safetensors_headers import HeaderRefused, read_header

ENCODER_WEIGHTS = ("encoder.", "quant_conv.")
# What of the config decides how pixels become the latents that the U-Net sees; absent means the same as null.
ENCODER_CONFIG = (
    "_class_name", "act_fn", "block_out_channels", "down_block_types", "in_channels", "latent_channels", "latents_mean",
    "latents_std", "layers_per_block", "mid_block_add_attention", "norm_num_groups", "scaling_factor", "shift_factor",
    "use_quant_conv",
)  # fmt: skip


def hash_encoder(folder: Path) -> str:
    """Hex SHA-256 of the encoder's weights, by name, type, shape and bytes, and of what its config says of latents.

    `folder` is a whole model folder. Raises `FolderRefused` where its VAE cannot be read, and `FileNotFoundError` where
    it has none.
    """
    vae = folder / "vae"
    try:
        config = json.loads((vae / "config.json").read_text(encoding="utf-8"))
        known = {key: config[key] for key in ENCODER_CONFIG if config.get(key) is not None}
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
        paths = _holders(vae)
        for name in sorted(paths):
            _add_tensor(digest, paths[name], name)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, AttributeError, HeaderRefused) as error:
        raise FolderRefused("The VAE of the model cannot be read.") from error
    if not paths:
        raise FolderRefused("The VAE of the model has no encoder.")
    return digest.hexdigest()


def _holders(vae: Path) -> dict[str, Path]:
    """The file that holds each of the encoder's tensors."""
    return {
        name: path
        for path in sorted(vae.glob("*.safetensors"))
        for name in read_header(path)
        if name.startswith(ENCODER_WEIGHTS)
    }


def _add_tensor(digest: "hashlib._Hash", path: Path, name: str) -> None:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entry = json.loads(file.read(length))[name]
        begin, end = entry["data_offsets"]
        digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
        file.seek(8 + length + begin)
        for block in _blocks(file, end - begin):
            digest.update(block)


def _blocks(file: BinaryIO, count: int) -> Iterator[bytes]:
    while count > 0:
        block = file.read(min(READ_BYTES, count))
        if not block:
            raise ValueError("the file is cut off")
        count -= len(block)
        yield block
