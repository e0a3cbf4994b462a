"""Faults of a step, also for the processes of a group."""

import sys
from dataclasses import replace
from typing import Any

import pytest

from training.engine import objectives, steps
from training.engine.__main__ import main


def not_finite_from(step: int, times: int) -> Any:
    """A trainer step whose loss is not finite from a step on, so many times."""
    original, left = objectives.make_batch, [times]

    def broken(draws: Any, *rest: Any, **options: Any) -> Any:
        batch = original(draws, *rest, **options)
        if options.get("sampled", True) and left[0] and current[0] >= step:
            left[0] -= 1
            return replace(batch, target=batch.target * float("nan"))
        return batch

    current = [0]
    apply = steps.apply_gradients

    def counted(learner: Any, loss: float) -> Any:
        done = apply(learner, loss)
        current[0] = learner.step
        return done

    patch = pytest.MonkeyPatch()
    patch.setattr(objectives, "make_batch", broken)
    patch.setattr(steps, "apply_gradients", counted)
    return patch


def run_not_finite_from(step: int, times: int, folder: str) -> None:
    """The trainer's program with such a loss."""
    not_finite_from(step, times)
    sys.exit(main([folder]))
