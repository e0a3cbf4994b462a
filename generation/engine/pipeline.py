"""Models ready to draw: loading a checked folder, and keeping the last few warm."""

import gc
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)

from generation.engine.families import FAMILIES
from generation.engine.folders import FolderRefused, FolderReport, hash_folder, inspect_folder
from generation.engine.runtime import choose_device, choose_dtype, prepare_torch

# What a folder may name and is never loaded, by pipeline.
LEFT_OUT: dict[Any, dict[str, Any]] = {
    StableDiffusionPipeline: {
        "safety_checker": None,
        "feature_extractor": None,
        "image_encoder": None,
        "requires_safety_checker": False,
    },
    StableDiffusionXLPipeline: {"feature_extractor": None, "image_encoder": None, "add_watermarker": False},
    StableDiffusion3Pipeline: {"feature_extractor": None, "image_encoder": None},
    FluxPipeline: {"feature_extractor": None, "image_encoder": None},
}
PIPELINES = {kind.__name__: kind for kind in LEFT_OUT}


@dataclass(frozen=True)
class Pipeline:
    """A loaded model: the diffusers pipeline `pipe`, what its folder said, and where it computes."""

    pipe: Any
    report: FolderReport
    folder: Path
    device: torch.device
    dtype: torch.dtype

    @property
    def resolution(self) -> int:
        return self.report.resolution

    @property
    def denoiser(self) -> Any:
        """The network that a run trains: a U-Net, or a transformer."""
        return getattr(self.pipe, self.report.denoiser)


def load_pipeline(
    folder: Path, device: str = "auto", dtype: str = "auto", *, denoiser_on_cpu: bool = False
) -> Pipeline:
    """Load a model folder after checking it, without network, pickle or code of the folder's own.

    device: "auto", "cpu", "cuda" or "cuda:1". dtype: "auto" (float32, whatever the type on disk), "float32",
    "bfloat16" or "float16" (float32 on a CPU). `denoiser_on_cpu` leaves that part there, for a caller who takes it to the
    device in pieces. Raises `FolderRefused` for a folder that is no usable model.
    """
    folder = Path(folder)
    report = inspect_folder(folder)
    prepare_torch()
    chosen_device = choose_device(device)
    chosen_dtype = choose_dtype(dtype, chosen_device)
    try:
        kind = PIPELINES[report.pipeline]
        pipe = kind.from_pretrained(
            folder, dtype=chosen_dtype, local_files_only=True, use_safetensors=True, **LEFT_OUT[kind], **_absent(report)
        )
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        ImportError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        # What passes the checks and still does not load has configs that contradict its weights.
        raise FolderRefused("The model's configs and weights do not fit together: diffusers cannot load it.") from error
    pipe.set_progress_bar_config(disable=True)
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            if not (denoiser_on_cpu and name == report.denoiser):
                part.to(chosen_device)
            part.requires_grad_(False).eval()
    return Pipeline(pipe, report, folder, chosen_device, chosen_dtype)


def _absent(report: FolderReport) -> dict[str, None]:
    """The optional parts that the folder does not have: diffusers wants to be told."""
    has_them = any(part in report.parameters for part in FAMILIES[report.pipeline].optional)
    return {} if has_them else dict.fromkeys(FAMILIES[report.pipeline].optional)


class WarmPipelines:
    """The last `capacity` models of this process, by content hash, so that the next batch draws at once."""

    def __init__(self, capacity: int = 2, *, device: str = "auto", dtype: str = "auto") -> None:
        if capacity < 1:
            raise ValueError("capacity must be at least 1")
        self.capacity = capacity
        self.device = device
        self.dtype = dtype
        self._warm: OrderedDict[str, Pipeline] = OrderedDict()

    def __contains__(self, content_hash: str) -> bool:
        return content_hash in self._warm

    def __len__(self) -> int:
        return len(self._warm)

    def get(self, folder: Path, content_hash: str) -> Pipeline:
        """The model with this content hash, loaded from `folder` if it is not warm.

        Raises `FolderRefused` if the folder is no usable model, or its files are not those of the hash.
        """
        if content_hash in self._warm:
            self._warm.move_to_end(content_hash)
            return self._warm[content_hash]
        if hash_folder(folder)[0] != content_hash:
            raise FolderRefused("The model's files have changed since it was imported.")
        # Make room first: two large models may not fit beside each other.
        while len(self._warm) >= self.capacity:
            self._warm.popitem(last=False)
            # Parts of a pipeline may know each other, and collections are rare.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        self._warm[content_hash] = load_pipeline(folder, self.device, self.dtype)
        return self._warm[content_hash]
