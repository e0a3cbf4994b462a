"""Figures that are read while the next step is under way, as on a GPU: the same run as where each step waits for its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from generation.engine.folders import hash_file
from tests.training.engine.conftest import MakeRun
from tests.training.engine.faults import not_finite_where
from tests.training.engine.test_trainer import UNET, Killed, kill_at, lines, stop_at
from training.engine import saving, steps
from training.engine.checkpoints import list_checkpoints, load_newest
from training.engine.draws import Draw
from training.engine.learner import Learner
from training.engine.recipe import RunRefused
from training.engine.result import Diverged
from training.engine.run import Run, Stopped
from training.engine.run_files import RunFiles
from training.engine.trainer import run_training

QUIET: dict[str, Any] = {"sample_prompts": [], "validate_every": 0, "batch_size": 2}
# What a machine takes for a step, and when.
OF_THE_MACHINE = {"images_per_second", "seconds", "memory_bytes", "time"}


@contextmanager
def late() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "LATE_DEVICES", {"cpu"})
        yield


def both_ways(make_run: MakeRun, train: Callable[[Path], None] = run_training, **changes: Any) -> tuple[Path, Path]:
    """The same run twice, with figures read at once and late."""
    plain, other = make_run("plain", **changes), make_run("late", **changes)
    train(plain)
    with late():
        train(other)
    return plain, other


def told(folder: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if key not in OF_THE_MACHINE}
        for line in lines(folder / "metrics.jsonl")
    ]


def happened(folder: Path) -> list[dict[str, Any]]:
    """Events in their order, but for checkpoints, which are published whenever they are written."""
    events = [
        {key: value for key, value in line.items() if key not in ("time", "seconds")}
        for line in lines(folder / "events.jsonl")
    ]
    saved = [each for each in events if each["kind"] == "checkpoint"]
    return [*(each for each in events if each["kind"] != "checkpoint"), *saved]


def assert_same(plain: Path, other: Path) -> None:
    assert told(other) == told(plain)
    assert happened(other) == happened(plain)
    assert hash_file(other / UNET) == hash_file(plain / UNET)


@contextmanager
def broken_where(is_broken: Callable[[Learner], bool], *, in_gradient: bool = False) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        not_finite_where(patch, is_broken, in_gradient=in_gradient)
        yield


def test_figures_are_told_once_the_next_step_is_under_way(make_run: MakeRun) -> None:
    folder = make_run(steps=5, checkpoint_every=3, **QUIET)
    seen: list[tuple[str, int]] = []
    passing, telling = steps.pass_through, RunFiles.metric

    def passed(run: Run, draws: list[Draw]) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(("passed", run.learner.step + 1))
        return passing(run, draws)

    def metric(self: RunFiles, line: Any) -> None:
        seen.append(("told", line["step"]))
        telling(self, line)

    with pytest.MonkeyPatch.context() as patch, late():
        patch.setattr(steps, "pass_through", passed)
        patch.setattr(RunFiles, "metric", metric)
        run_training(folder)
    # All is told before a checkpoint, and at the end.
    assert seen == [
        ("passed", 1),
        ("passed", 2),
        ("told", 1),
        ("passed", 3),
        ("told", 2),
        ("told", 3),
        ("passed", 4),
        ("passed", 5),
        ("told", 4),
        ("told", 5),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"ema_decay": 0.9, "gradient_accumulation": 2, "schedule": "cosine", "warmup_steps": 2, "checkpoint_every": 4},
        {"method": "lora", "lora_rank": 2, "validate_every": 5, "sample_every": 4, "max_grad_norm": 1e-3},
        {"ema_decay": 0.9, "validate_every": 1},
    ],
    ids=["average", "lora", "each-step"],
)
def test_run_is_the_same_by_bits(make_run: MakeRun, changes: dict[str, Any]) -> None:
    assert_same(*both_ways(make_run, **changes))


@pytest.mark.parametrize("in_gradient", [False, True], ids=["loss", "gradient"])
def test_steps_that_are_not_finite_are_skipped_alike(make_run: MakeRun, in_gradient: bool) -> None:
    # The first of all, the last of all, and one before a checkpoint, which is made of the weights before it.
    with broken_where(lambda learner: learner.step in (0, 3, 4, 9), in_gradient=in_gradient):
        plain, other = both_ways(make_run, steps=10, checkpoint_every=4, ema_decay=0.9, **QUIET)
    assert_same(plain, other)
    assert [line["step"] for line in told(other) if line["skipped"]] == [1, 4, 5, 10]
    assert [each["step"] for each in happened(other) if each["kind"] == "skipped"] == [1, 4, 5, 10]


@pytest.mark.parametrize("checkpoint_every", [2, 4, 100])
def test_run_goes_back_alike(make_run: MakeRun, checkpoint_every: int) -> None:
    changes = {"steps": 14, "checkpoint_every": checkpoint_every, "ema_decay": 0.9, **QUIET}
    with broken_where(lambda learner: 5 <= learner.step < 11 and learner.rollbacks == 0):
        plain, other = both_ways(make_run, **changes)
    assert_same(plain, other)
    (back,) = [each for each in happened(other) if each["kind"] == "rolled_back"]
    assert back["step"] == 11


def test_run_diverges_alike(make_run: MakeRun) -> None:
    def train(folder: Path) -> None:
        with pytest.raises(Diverged):
            run_training(folder)

    with broken_where(lambda learner: learner.step >= 3):
        plain, other = both_ways(make_run, train, steps=20, checkpoint_every=3, **QUIET)
    assert told(other) == told(plain)
    assert happened(other) == happened(plain)


@pytest.mark.parametrize("kills", [(1, 2), (3, 4), (5, 9)])
def test_killed_run_resumes_to_the_same_bits(make_run: MakeRun, kills: tuple[int, ...]) -> None:
    changes = {"steps": 10, "checkpoint_every": 4, "ema_decay": 0.9, **QUIET}
    whole, torn = make_run("whole", **changes), make_run("torn", **changes)
    with broken_where(lambda learner: learner.step in (3, 6)):
        run_training(whole)
        with late():
            for step in kills:
                with pytest.raises(Killed):
                    run_training(torn, kill_at(torn, step))
            run_training(torn)
    assert told(torn) == told(whole)
    assert hash_file(torn / UNET) == hash_file(whole / UNET)


def test_stop_saves_the_step_that_is_under_way(make_run: MakeRun) -> None:
    changes = {"steps": 10, "checkpoint_every": 100, "ema_decay": 0.9, **QUIET}
    whole, torn = make_run("whole", **changes), make_run("torn", **changes)
    run_training(whole)
    with late():
        with pytest.raises(Stopped):
            run_training(torn, stop_at(torn, 3))
        # Once the line of step 3 is there, step 4 has begun.
        assert [line["step"] for line in told(torn)] == [1, 2, 3, 4]
        assert [path.name for path in list_checkpoints(torn)] == ["step-000004"]
        run_training(torn)
    assert told(torn) == told(whole)
    assert hash_file(torn / UNET) == hash_file(whole / UNET)


def test_run_that_is_refused_midway_saves_the_step_that_is_under_way(make_run: MakeRun) -> None:
    folder = make_run(steps=10, checkpoint_every=100, ema_decay=0.9, **QUIET)

    def refusing(run: Run) -> None:
        if run.learner.step == 5:
            raise RunRefused("An image is damaged.")

    with pytest.MonkeyPatch.context() as patch, late():
        patch.setattr("training.engine.trainer.provide_step", refusing)
        with pytest.raises(RunRefused, match="damaged"):
            run_training(folder)
    assert [line["step"] for line in told(folder)] == [1, 2, 3, 4, 5]
    assert [path.name for path in list_checkpoints(folder)] == ["step-000005"]


def test_short_memory_takes_less_at_once_and_the_step_before_it_stands(make_run: MakeRun) -> None:
    real = steps.example_errors

    def starved(network: Any, draws: list[Draw], *rest: Any, **options: Any) -> Any:
        if network.training and len(draws) > 1:
            starving[0] -= 1
            if not starving[0]:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(network, draws, *rest, **options)

    def train(folder: Path) -> None:
        starving[0] = 3
        run_training(folder)

    starving = [0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "example_errors", starved)
        plain, other = both_ways(make_run, train, steps=5, checkpoint_every=4, **QUIET)
    assert_same(plain, other)
    (event,) = [each for each in happened(other) if each["kind"] == "smaller_batch"]
    assert (event["step"], event["images"]) == (2, 1)


def test_checkpoint_of_a_step_that_is_under_way_is_refused(make_run: MakeRun) -> None:
    folder = make_run(steps=4, checkpoint_every=100, **QUIET)

    def hasty(run: Run) -> None:
        if run.learner.step == 2:
            saving.save(run)

    with pytest.MonkeyPatch.context() as patch, late():
        patch.setattr("training.engine.trainer.provide_step", hasty)
        with pytest.raises(RuntimeError, match="still under way"):
            run_training(folder)
    assert load_newest(folder)[0] is None


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw8bit"])
def test_optimizers_that_cannot_be_told_on_the_device_wait(make_run: MakeRun, optimizer: str) -> None:
    with broken_where(lambda learner: learner.step == 2):
        assert_same(*both_ways(make_run, optimizer=optimizer, steps=4, **QUIET))
