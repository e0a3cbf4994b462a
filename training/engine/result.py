"""The result of a run: a complete model folder, equal to the parent's but for the weights of what was trained.

A low-rank run's updates lie beside them as `lora/pytorch_lora_weights.safetensors`, the file that diffusers'
`load_lora_weights` reads onto the parent.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open

from generation.engine.folders import LOW_RANK_FILE, hash_folder, inspect_folder
from generation.engine.safetensors_headers import read_header
from training.engine.checkpoints import Tensors, discard_folder, gone_on_failure, write_tensors
from training.engine.recipe import RunRefused
from training.engine.run_files import sync_folder

WEIGHTS = "diffusion_pytorch_model.safetensors"
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


class Diverged(RunRefused):
    """The training left the finite numbers."""


def publish_result(
    folder: Path,
    parent: Path,
    weights: Tensors,
    low_rank: Tensors | None = None,
    *,
    part: str = "unet",
    kept: tuple[str, ...] = (),
    has_alpha: bool = False,
) -> str:
    """Write `folder`/result and return its content hash.

    All files but the weights of `part` are the parent's, byte for byte; the weights have the types that the parent's have
    on disk. Of the part's own weights those stay the parent's whose names begin with one of `kept`. `has_alpha` says in
    the config of an RGB decoder that it has four channels now. The folder is checked before it appears under its name, whole. Raises `Diverged` for weights that are
    not finite in that type.
    """
    temporary, final = folder / ".result.tmp", folder / "result"
    shutil.rmtree(temporary, ignore_errors=True)
    with gone_on_failure(temporary):
        shutil.copytree(parent, temporary, ignore=lambda path, names: _old_weights(Path(path), names, part))
        types = _types_on_disk(parent / part)
        cast = {name: tensor.to(types.get(name, tensor.dtype)).contiguous() for name, tensor in weights.items()}
        if not all(bool(torch.isfinite(tensor).all()) for tensor in cast.values()):
            raise Diverged("The training diverged: some of its weights are not finite numbers.")
        write_tensors({**_kept_weights(parent / part, kept), **cast}, temporary / part / WEIGHTS, {"format": "pt"})
        if has_alpha:
            _declare_alpha(temporary / part / "config.json")
        if low_rank is not None:
            (temporary / LOW_RANK_FILE).parent.mkdir()
            write_tensors({name: tensor.contiguous() for name, tensor in low_rank.items()}, temporary / LOW_RANK_FILE)
        inspect_folder(temporary)
        content_hash, _ = hash_folder(temporary)
        _sync_all(temporary)
    if final.exists():
        discard_folder(final)
    temporary.rename(final)
    sync_folder(folder)
    return content_hash


def _old_weights(folder: Path, names: list[str], part: str) -> set[str]:
    """The part's weights in the parent, whole or in shards, since the result has one file; and what made the parent
    itself."""
    if (folder / "model_index.json").exists():
        return {Path(LOW_RANK_FILE).parent.name} & set(names)
    if folder.name != part:
        return set()
    return {name for name in names if name.endswith((".safetensors", ".safetensors.index.json"))}


def _kept_weights(part: Path, kept: tuple[str, ...]) -> Tensors:
    """The tensors as they lie on the parent's disk, bit for bit."""
    tensors: Tensors = {}
    for path in sorted(part.glob("*.safetensors")) if kept else []:
        with safe_open(path, framework="pt") as file:
            tensors.update({name: file.get_tensor(name) for name in file.keys() if name.startswith(kept)})  # noqa: SIM118
    return tensors


def _declare_alpha(config: Path) -> None:
    """Four output channels; a config that says so already stays byte for byte."""
    values = json.loads(config.read_text(encoding="utf-8"))
    if values.get("out_channels", 3) != 4:
        config.write_text(json.dumps({**values, "out_channels": 4}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _types_on_disk(part: Path) -> dict[str, torch.dtype]:
    return {
        name: DTYPES[info.dtype]
        for path in sorted(part.glob("*.safetensors"))
        for name, info in read_header(path).items()
        if info.dtype in DTYPES
    }


def _sync_all(folder: Path) -> None:
    import os

    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
