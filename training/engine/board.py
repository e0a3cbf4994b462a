"""TensorBoard files of a run, in `tensorboard/` of its folder, written by its own client where that is installed."""

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
        step = int(line["step"])
        for tag in ("loss", "lr", "grad_norm", "images_per_second"):
            self._scalar(f"train/{tag}", line.get(tag), step)
        for group in ("loss_by_source", "loss_by_band", "loss_by_part"):
            for label, value in (line.get(group) or {}).items():
                self._scalar(f"{group}/{label}", value, step)

    def validation(self, step: int, losses: Mapping[str, Any]) -> None:
        """The losses of a validation, as in events.jsonl."""
        self._scalar("validation/loss", losses.get("loss"), step)
        for tag in ("alpha_iou", "psnr_on_white"):
            self._scalar(f"validation/{tag}", losses.get(tag), step)
        for group in ("by_source", "by_band"):
            for label, value in (losses.get(group) or {}).items():
                self._scalar(f"validation_{group}/{label}", value, step)

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

    def _scalar(self, tag: str, value: Any, step: int) -> None:
        if self._writer is not None and isinstance(value, int | float):
            self._writer.add_scalar(tag, value, step)
