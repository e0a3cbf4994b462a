"""The validation loss: the denoising error on a frozen grid of (image, noise, timestep), by source and region.

The grid has points in every region of timesteps, so the content band (a tenth of all timesteps, and the one place where
content is learned) is never averaged away. Its images are those that the run holds out; of a source that holds none
out they are training images, which show fit and forgetting, not generalisation.
"""

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from generation.engine.draw import Interrupted
from training.engine.bands import Region, Schedule, cell_shares, report_regions
from training.engine.draws import Draw, first_word, key_words
from training.engine.holdout import Split
from training.engine.learner import Learner, weights_for_use
from training.engine.memory import ShortOfMemory, is_out_of_memory
from training.engine.objectives import Inputs, example_errors
from training.engine.recipe import RunRefused, Source
from training.engine.shapes import group_by_shape
from training.engine.transparency import (
    DecoderInputs,
    alpha_overlap,
    decode_draws,
    psnr_on_white,
    true_images,
    weighted_errors,
)

IMAGES = 8
DECODER_IMAGES = 16
POINTS = 4
BATCH = 16


@dataclass(frozen=True)
class Cell:
    """One source in one region of timesteps, with that region's name, and its natural share of training draws."""

    source: int
    region: Region
    label: str
    share: float
    draws: tuple[Draw, ...]
    held_out: bool


@dataclass
class Passes:
    """How a validation goes through its grid: `most` examples at once, halved where memory is short, unless `is_sharded`.
    It ends where `stop()`, which is asked before every pass, comes true."""

    most: int = BATCH
    stop: Callable[[], bool] = lambda: False
    is_sharded: bool = False


def make_grid(schedule: Schedule, rows: Sequence[Source], sources: Sequence[Split]) -> list[Cell]:
    """Every source in every region, also where its band says nothing: what is forgotten there shows here."""
    cells = []
    chosen = [_chosen(split) for split in sources]
    for region in report_regions(schedule, rows):
        shares = cell_shares(schedule, rows, region)
        for source, split in enumerate(sources):
            draws = tuple(
                Draw(timestep, source, image, False, first_word("validation", sha256, timestep) >> 1)
                for image, sha256 in chosen[source]
                for timestep in schedule.spread(region, POINTS)
            )
            cells.append(Cell(source, region, schedule.label(region), shares[source], draws, split.held > 0))
    return cells


def make_decoder_grid(schedule: Schedule, rows: Sequence[Source], sources: Sequence[Split]) -> list[Cell]:
    """One cell a source: a decoder knows no noise, so that each image is measured once, at its clean latent."""
    total = sum(row.weight for row in rows)
    return [
        Cell(
            source,
            schedule.axis,
            schedule.label(schedule.axis),
            row.weight / total,
            tuple(
                Draw(0, source, image, True, first_word("validation", sha256, 0) >> 1)
                for image, sha256 in _chosen(split, DECODER_IMAGES)
            ),
            split.held > 0,
        )
        for source, (row, split) in enumerate(zip(rows, sources, strict=True))
    ]


def validate_decoder(
    learner: Learner, grid: Sequence[Cell], rows: Sequence[Source], inputs: DecoderInputs, passes: Passes
) -> dict[str, Any]:
    """{"loss", "by_source", "alpha_iou", "iou_by_source", "psnr_on_white", "psnr_by_source", "cells", "seconds"}.

    The loss is the objective itself on images that never change; "alpha_iou" is the overlap of the decoded shape with the
    true one at an alpha of one half, 0 to 1, and "psnr_on_white" in dB. Means over images, sources by their share.
    Raises as `validate` does.
    """
    started = time.monotonic()
    with weights_for_use(learner) as vae, torch.inference_mode():
        measured = [_decoder_figures(vae, cell, inputs, passes) for cell in grid]
    names = [rows[cell.source].name for cell in grid]
    errors, overlaps, ratios = ([figures[i] for figures in measured] for i in range(3))

    def mean(values: Sequence[float]) -> float:
        return _mean([(value, cell.share) for value, cell in zip(values, grid, strict=True)])

    return {
        "loss": mean(errors),
        "by_source": dict(zip(names, errors, strict=True)),
        "alpha_iou": mean(overlaps),
        "iou_by_source": dict(zip(names, overlaps, strict=True)),
        "psnr_on_white": mean(ratios),
        "psnr_by_source": dict(zip(names, ratios, strict=True)),
        "cells": [
            {"source": name, "mse": error, "share": cell.share, "points": len(cell.draws), "held_out": cell.held_out}
            for name, error, cell in zip(names, errors, grid, strict=True)
        ],
        "seconds": time.monotonic() - started,
    }


def _decoder_figures(vae: Any, cell: Cell, inputs: DecoderInputs, passes: Passes) -> tuple[float, float, float]:
    """(loss, IoU of alpha at one half, PSNR on white), the means over the cell's images."""

    def figures(draws: Sequence[Draw]) -> torch.Tensor:
        true = true_images(draws, inputs)
        decoded, grounds = decode_draws(vae, draws, inputs, sampled=False)
        errors = weighted_errors(decoded, true, grounds, inputs).sum(dim=1)
        return torch.stack([errors, alpha_overlap(decoded, true), psnr_on_white(decoded, true)])

    loss, overlap, ratio = _means(cell, inputs, passes, figures)
    return loss, overlap, ratio


def validate(
    learner: Learner,
    grid: Sequence[Cell],
    rows: Sequence[Source],
    inputs: Inputs,
    passes: Passes,
) -> dict[str, Any]:
    """{"loss", "by_source", "by_band", "cells": [{"source", "band", "mse", "share", "points", "held_out"}], "seconds"}.

    "loss" weighs the cells by their natural share of training draws: it is the objective itself, on the frozen grid.
    `by_source` is the same within each source's own band; `by_band` the plain mean over sources. A cell's "mse" is the
    objective's error: of pairs it is no mean square. Raises `Interrupted` where `passes` say to stop, and
    `ShortOfMemory` where there is not enough for one example.
    """
    started = time.monotonic()
    # Not inference mode: what is put together of shards in it could not be trained afterwards.
    with weights_for_use(learner) as unet, torch.no_grad():
        errors = [_cell_error(unet, cell, inputs, passes) for cell in grid]
    labels = [cell.label for cell in grid]
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


def _cell_error(unet: Any, cell: Cell, inputs: Inputs, passes: Passes) -> float:
    (error,) = _means(
        cell, inputs, passes, lambda draws: example_errors(unet, draws, inputs, sampled=False)[0].reshape(1, -1)
    )
    return error


def _means(
    cell: Cell,
    inputs: Inputs | DecoderInputs,
    passes: Passes,
    figures: Callable[[Sequence[Draw]], torch.Tensor],
) -> list[float]:
    """The means over the cell's draws of `figures(draws)`, [F, B]: in passes of one shape each, whose size changes no more
    than the order of a sum."""
    totals: list[float] = []
    for positions in group_by_shape([inputs.encoded.shape_of(draw) for draw in cell.draws], len(cell.draws)):
        left = [cell.draws[position] for position in positions]
        while left:
            if passes.stop():
                raise Interrupted
            draws = left[: passes.most]
            found = _found(draws, passes, figures)
            if found is None:
                _take_less_at_once(passes)
                continue
            totals = [a + b for a, b in zip(totals, found, strict=True)] if totals else found
            left = left[len(draws) :]
    return [total / len(cell.draws) for total in totals]


def _found(
    draws: Sequence[Draw], passes: Passes, figures: Callable[[Sequence[Draw]], torch.Tensor]
) -> list[float] | None:
    """The sums of the draws' figures; None where memory does not do for them."""
    try:
        return figures(draws).sum(dim=1).tolist()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if passes.is_sharded:
            # As in a step, the others wait for this one's part of the weights.
            raise RunRefused(
                "There was not enough memory for a validation. In shards it is not tried in smaller parts: choose a smaller "
                "batch size, with more of them in a step.",
                field="batch_size",
            ) from error
        return None


def _take_less_at_once(passes: Passes) -> None:
    if passes.most == 1:
        raise ShortOfMemory("There was not enough memory to validate, even with one image at a time.")
    passes.most //= 2
    # Of a CPU it frees nothing, and asks for no GPU.
    torch.cuda.empty_cache()


def _chosen(split: Split, most: int = IMAGES) -> list[tuple[int, str]]:
    """Up to `most` indices with their images' hashes, by a hash of each image: the same whatever the order of the manifest."""
    found = heapq.nsmallest(
        most, split.candidates(), key=lambda each: key_words("validation image", each[1].sha256, each[1].caption)
    )
    return [(index, item.sha256) for index, item in found]


def _mean(values: Sequence[tuple[float, float]]) -> float:
    total = sum(weight for _, weight in values)
    return sum(value * weight for value, weight in values) / total
