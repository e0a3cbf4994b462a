"""The result of a run: a complete model folder, equal to the parent's but for the U-Net's weights.

A low-rank run's updates lie beside them as `lora/pytorch_lora_weights.safetensors`, the file that diffusers'
`load_lora_weights` reads onto the parent.
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from generation.engine.folders import LOW_RANK_FILE, hash_folder, inspect_folder
from generation.engine.safetensors_headers import read_header
from training.engine.checkpoints import Tensors, discard_folder
from training.engine.recipe import RunRefused
from training.engine.run_files import sync_folder

UNET_WEIGHTS = "diffusion_pytorch_model.safetensors"
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


class Diverged(RunRefused):
    """The training left the finite numbers."""


def publish_result(folder: Path, parent: Path, unet_weights: Tensors, low_rank: Tensors | None = None) -> str:
    """Write `folder`/result and return its content hash.

    All files but the U-Net's weights are the parent's, byte for byte; the weights have the types that the parent's have
    on disk. The folder is checked before it appears under its name, whole. Raises `Diverged` for weights that are
    not finite in that type.
    """
    temporary, final = folder / ".result.tmp", folder / "result"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(parent, temporary, ignore=_old_weights)
    types = _types_on_disk(parent / "unet")
    cast = {name: tensor.to(types.get(name, tensor.dtype)).contiguous() for name, tensor in unet_weights.items()}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in cast.values()):
        raise Diverged("The training diverged: some of its weights are not finite numbers.")
    save_file(cast, temporary / "unet" / UNET_WEIGHTS, metadata={"format": "pt"})
    if low_rank is not None:
        (temporary / LOW_RANK_FILE).parent.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in low_rank.items()}, temporary / LOW_RANK_FILE)
    inspect_folder(temporary)
    content_hash, _ = hash_folder(temporary)
    _sync_all(temporary)
    if final.exists():
        discard_folder(final)
    temporary.rename(final)
    sync_folder(folder)
    return content_hash


def _old_weights(folder: str, names: list[str]) -> set[str]:
    """The parent's U-Net weights, whole or in shards, since the result has one file; and what made the parent itself."""
    if (Path(folder) / "model_index.json").exists():
        return {Path(LOW_RANK_FILE).parent.name} & set(names)
    if Path(folder).name != "unet":
        return set()
    return {name for name in names if name.endswith((".safetensors", ".safetensors.index.json"))}


def _types_on_disk(unet: Path) -> dict[str, torch.dtype]:
    return {
        name: DTYPES[info.dtype]
        for path in sorted(unet.glob("*.safetensors"))
        for name, info in read_header(path).items()
        if info.dtype in DTYPES
    }


def _sync_all(folder: Path) -> None:
    import os

    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
