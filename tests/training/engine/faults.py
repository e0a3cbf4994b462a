"""Faults of a step, also for the processes of a group."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from training.engine import objectives, steps
from training.engine.__main__ import main
from training.engine.learner import Learner


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
    passing = steps.pass_through

    def counted(run: Any, draws: Any) -> Any:
        current[0] = run.learner.step
        return passing(run, draws)

    patch = pytest.MonkeyPatch()
    patch.setattr(objectives, "make_batch", broken)
    patch.setattr(steps, "pass_through", counted)
    return patch


def not_finite_where(
    patch: pytest.MonkeyPatch, is_broken: Callable[[Learner], bool], *, in_gradient: bool = False
) -> None:
    """The loss of these steps is not a number, or only a number of their gradient."""
    passing = steps.pass_through

    def broken(run: Any, draws: Any) -> Any:
        errors, loss = passing(run, draws)
        if not is_broken(run.learner):
            return errors, loss
        if not in_gradient:
            return errors, loss * float("nan")
        next(each.grad for each in run.learner.parameters.values() if each.grad is not None).view(-1)[0] = float("inf")
        return errors, loss

    patch.setattr(steps, "pass_through", broken)


def run_not_finite_from(step: int, times: int, folder: str) -> None:
    """The trainer's program with such a loss."""
    not_finite_from(step, times)
    sys.exit(main([folder]))
