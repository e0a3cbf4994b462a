"""The line of a step in metrics.jsonl, from its figures."""

import math
from typing import Any

from training.engine.draws import Draw
from training.engine.figures import Read
from training.engine.run import Run
from training.engine.transparency import LOSS_PARTS


def metrics_of(run: Run, step: int, draws: list[Draw], rate: float, read: Read, *, updated: bool) -> dict[str, Any]:
    """The line of a step (from 1) in metrics.jsonl, but for how long it took."""
    settings = run.settings
    example_losses = [sum(each) for each in read.example_parts]
    names = [settings.sources[each.source].name for each in draws]
    # A pair's loss lies below ln 2 exactly where the U-Net prefers the same image as the raters, more than its parent.
    agreed = {"preferred": sum(each < math.log(2) for each in example_losses) / len(example_losses)}
    by_part = _by_part(read.example_parts) if settings.trains_decoder else _by_band(run, draws, example_losses)
    return {
        "step": step,
        **(agreed if settings.objective == "dpo" else {}),
        "loss": read.loss if updated else None,
        "loss_by_source": _means(names, example_losses),
        **by_part,
        "lr": rate,
        "grad_norm": read.norm if math.isfinite(read.norm) else None,
        "skipped": not updated,
    }


def _by_band(run: Run, draws: list[Draw], losses: list[float]) -> dict[str, Any]:
    return {"loss_by_band": _means([_region_of(run, each.timestep) for each in draws], losses)}


def _by_part(losses: list[list[float]]) -> dict[str, Any]:
    labels = [label for _ in losses for label in LOSS_PARTS]
    return {"loss_by_part": _means(labels, [value for each in losses for value in each])}


def _region_of(run: Run, timestep: float) -> str:
    return next(run.schedule.label(region) for region in run.regions if timestep in region)


def _means(labels: list[str], values: list[float]) -> dict[str, float]:
    """The mean of the finite values of each label."""
    groups: dict[str, list[float]] = {}
    for label, value in zip(labels, values, strict=True):
        if math.isfinite(value):
            groups.setdefault(label, []).append(value)
    return {label: sum(group) / len(group) for label, group in groups.items()}
