"""Steps without a finite loss that are not in a row: a run bears some of them, but not most of its steps."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from generation.engine.folders import hash_file
from tests.training.engine.conftest import MakeRun
from tests.training.engine.faults import not_finite_where
from tests.training.engine.test_process import error_of
from tests.training.engine.test_trainer import UNET, Killed, lines
from training.engine import steps
from training.engine.__main__ import main
from training.engine.checkpoints import load_newest, save_checkpoint
from training.engine.learner import SKIP_WINDOW, Learner
from training.engine.trainer import run_training

QUIET = {"sample_every": 0, "validate_every": 0, "batch_size": 1}


def five_of_six(learner: Learner) -> bool:
    return learner.step % 6 != 5


def backs(folder: Path) -> list[tuple[int, int]]:
    return [(line["step"], line["to"]) for line in lines(folder / "events.jsonl") if line["kind"] == "rolled_back"]


def test_run_that_mostly_skips_goes_back_twice_and_then_counts_as_diverged(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(steps=200, checkpoint_every=20, **QUIET)
    not_finite_where(monkeypatch, five_of_six)
    assert main([str(folder)]) == 78
    # Of the first 25 steps 21 were skipped; what came before a checkpoint that it went back to counts no longer.
    assert backs(folder) == [(25, 20), (45, 40)]
    assert "more than half of 40, had no finite loss" in str(error_of(folder)["sentence"])


def test_run_that_skips_every_other_step_goes_on(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(steps=SKIP_WINDOW + 8, checkpoint_every=100, **QUIET)
    not_finite_where(monkeypatch, lambda learner: learner.step % 2 == 0)
    run_training(folder)
    assert backs(folder) == []
    assert sum(line["skipped"] for line in lines(folder / "metrics.jsonl")) == SKIP_WINDOW // 2 + 4


def test_killed_run_remembers_what_it_skipped(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, torn = (make_run(name, steps=36, checkpoint_every=10, **QUIET) for name in ("whole", "torn"))
    not_finite_where(monkeypatch, lambda learner: learner.rollbacks == 0 and five_of_six(learner))
    run_training(whole)

    def kill() -> bool:
        path = torn / "metrics.jsonl"
        if path.exists() and len(lines(path)) >= 23:
            raise Killed
        return False

    with pytest.raises(Killed):
        run_training(torn, kill)
    run_training(torn)
    assert backs(torn) == backs(whole) == [(25, 20)]
    assert hash_file(torn / UNET) == hash_file(whole / UNET)


def test_checkpoint_from_before_remembers_none(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(steps=30, checkpoint_every=10, **QUIET)
    not_finite_where(monkeypatch, lambda learner: learner.step < 20 and five_of_six(learner))
    with monkeypatch.context() as patch:
        patch.setattr(steps, "draws_of", ends_at(20, steps.draws_of))
        with pytest.raises(Killed):
            run_training(folder)
    checkpoint, _ = load_newest(folder)
    assert checkpoint is not None
    assert checkpoint.state["skipped_lately"] == [step for step in range(1, 21) if step % 6]
    older = {key: value for key, value in checkpoint.state.items() if key != "skipped_lately"}
    save_checkpoint(folder, replace(checkpoint, state=older), keep=1)
    run_training(folder)
    assert backs(folder) == []
    assert json.loads((folder / "result.json").read_text())["steps"] == 30


def ends_at(step: int, real: Callable[..., Any]) -> Callable[..., Any]:
    def draws_of(run: Any, wanted: int) -> Any:
        if wanted >= step:
            raise Killed
        return real(run, wanted)

    return draws_of
