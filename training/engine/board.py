"""TensorBoard files of a run, in `tensorboard/` of its folder, written by its own client where that is installed."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FOLDER = "tensorboard"


class Board:
    """Scalars and drawings for TensorBoard; does nothing where `tensorboard` is not installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._writer: Any = None

    def begin(self, step: int) -> None:
        """Write from the step after `step` on; what was written of later steps is dropped when the files are read."""
        self.close()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(self._folder), purge_step=step + 1)

    def metric(self, line: Mapping[str, Any]) -> None:
        """One step's figures, as in metrics.jsonl."""
        self._scalars(figures_of(line), int(line["step"]))

    def validation(self, step: int, losses: Mapping[str, Any]) -> None:
        """The losses of a validation, as in events.jsonl."""
        self._scalars(validation_figures_of(losses), step)

    def samples(self, step: int, images: Sequence[Image.Image]) -> None:
        """Drawings, with their transparency, by their number."""
        for number, image in enumerate(images):
            if self._writer is not None:
                self._writer.add_image(f"samples/{number:02d}", np.asarray(image), step, dataformats="HWC")

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _scalars(self, figures: Mapping[str, float], step: int) -> None:
        if self._writer is not None:
            for tag, value in figures.items():
                self._writer.add_scalar(tag, value, step)


def figures_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a step's metrics by tag: train/loss, loss_by_band/0-900 and so on; what was not finite is left out."""
    tags = {f"train/{tag}": line.get(tag) for tag in ("loss", "lr", "grad_norm", "images_per_second")}
    return _numbers({**tags, **_grouped(line, ("loss_by_source", "loss_by_band", "loss_by_part"), "")})


def validation_figures_of(losses: Mapping[str, Any]) -> dict[str, float]:
    """The same for a validation: validation/loss, validation_by_band/0-900 and so on."""
    tags = {f"validation/{tag}": losses.get(tag) for tag in ("loss", "alpha_iou", "psnr_on_white")}
    return _numbers({**tags, **_grouped(losses, ("by_source", "by_band"), "validation_")})


def _grouped(values: Mapping[str, Any], groups: Sequence[str], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{group}/{label}": value for group in groups for label, value in (values.get(group) or {}).items()}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {tag: value for tag, value in values.items() if isinstance(value, int | float) and math.isfinite(value)}
