"""The validation loss: the denoising error on a frozen grid of (image, noise, timestep), by source and region.

The grid has points in every region of timesteps, so the content band (a tenth of all timesteps, and the one place where
content is learned) is never averaged away. Its images are those that the run holds out; of a source that holds none
out they are training images, which show fit and forgetting, not generalisation.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.engine.bands import NoiseSchedule, cell_shares, region_label, report_regions
from training.engine.draws import Draw, key_words
from training.engine.holdout import Split
from training.engine.learner import Learner, weights_for_use
from training.engine.objectives import Inputs, example_errors
from training.engine.recipe import Source

IMAGES = 8
POINTS = 4
BATCH = 16


@dataclass(frozen=True)
class Cell:
    """One source in one region of timesteps, and its natural share of training draws."""

    source: int
    region: range
    share: float
    draws: tuple[Draw, ...]
    held_out: bool


def make_grid(schedule: NoiseSchedule, rows: Sequence[Source], sources: Sequence[Split]) -> list[Cell]:
    """Every source in every region, also where its band says nothing: what is forgotten there shows here."""
    cells = []
    for region in report_regions(schedule, rows):
        shares = cell_shares(schedule, rows, region)
        for source, split in enumerate(sources):
            draws = tuple(
                Draw(
                    timestep, source, image, False, key_words("validation", split.items[image].sha256, timestep)[0] >> 1
                )
                for image in _chosen(split)
                for timestep in _spread(region)
            )
            cells.append(Cell(source, region, shares[source], draws, split.held > 0))
    return cells


def validate(
    learner: Learner,
    grid: Sequence[Cell],
    rows: Sequence[Source],
    inputs: Inputs,
) -> dict[str, Any]:
    """{"loss", "by_source", "by_band", "cells": [{"source", "band", "mse", "share", "points", "held_out"}], "seconds"}.

    "loss" weighs the cells by their natural share of training draws: it is the objective itself, on the frozen grid.
    `by_source` is the same within each source's own band; `by_band` the plain mean over sources. A cell's "mse" is the
    objective's error: of pairs it is no mean square.
    """
    started = time.monotonic()
    with weights_for_use(learner) as unet, torch.inference_mode():
        errors = [_cell_error(unet, cell, inputs) for cell in grid]
    labels = [region_label(cell.region) for cell in grid]
    by_source = {
        row.name: _mean([(error, cell.share) for cell, error in zip(grid, errors, strict=True) if cell.source == i])
        for i, row in enumerate(rows)
    }
    by_band = {
        label: _mean([(error, 1.0) for each, error in zip(labels, errors, strict=True) if each == label])
        for label in dict.fromkeys(labels)
    }
    return {
        "loss": _mean([(error, cell.share) for cell, error in zip(grid, errors, strict=True)]),
        "by_source": by_source,
        "by_band": by_band,
        "cells": [
            {
                "source": rows[cell.source].name,
                "band": label,
                "mse": error,
                "share": cell.share,
                "points": len(cell.draws),
                "held_out": cell.held_out,
            }
            for cell, label, error in zip(grid, labels, errors, strict=True)
        ],
        "seconds": time.monotonic() - started,
    }


def _cell_error(unet: Any, cell: Cell, inputs: Inputs) -> float:
    total = 0.0
    for start in range(0, len(cell.draws), BATCH):
        errors, _ = example_errors(unet, cell.draws[start : start + BATCH], inputs, sampled=False)
        total += float(errors.sum())
    return total / len(cell.draws)


def _chosen(split: Split) -> list[int]:
    """Up to `IMAGES` indices, by a hash of each image: the same whatever the order of the manifest."""
    items = split.items
    ranked = sorted(
        split.for_validation, key=lambda i: key_words("validation image", items[i].sha256, items[i].caption)
    )
    return ranked[:IMAGES]


def _spread(region: range) -> list[int]:
    """Up to `POINTS` timesteps in the middle of equal parts of a region."""
    count = min(POINTS, len(region))
    return [region[int((i + 0.5) * len(region) / count)] for i in range(count)]


def _mean(values: Sequence[tuple[float, float]]) -> float:
    total = sum(weight for _, weight in values)
    return sum(value * weight for value, weight in values) / total
