"""Several processes of one machine, started by one program: stopped, killed and refused as a single trainer is."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from generation.engine.folders import hash_folder
from jobs.warm import Nursery, WarmProgram
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_process import ROOT, error_of, trained, wait_until
from tests.training.engine.test_trainer import lines
from training.engine import processes
from training.engine.group import own_gpu
from training.engine.recipe import RunRefused
from training.engine.trainer import run_training

Launch = Callable[[Path], WarmProgram]


@pytest.fixture(scope="module")
def launch() -> Iterator[Launch]:
    """Starts the program as a worker does: from a process that has imported torch for all of them."""
    nursery = Nursery("training.engine.warm", ROOT)

    def start(folder: Path, count: int = 2) -> WarmProgram:
        argv = [sys.executable, "-m", "training.engine.processes", str(count), str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return nursery.start(
            argv, log_path=folder / "trainer.log", cwd=ROOT, env=environment, while_waiting=lambda: None
        )

    yield start
    nursery.stop()


def trainers(launcher: WarmProgram) -> list[psutil.Process]:
    """The first is the main one: they are forked in the order of their ranks."""
    return sorted(psutil.Process(launcher.pid).children(), key=lambda child: (child.create_time(), child.pid))


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.processes
def test_group_stops_loses_a_process_and_goes_on_to_the_losses_of_one(
    make_run: MakeRun, small_parent: Path, launch: Launch
) -> None:
    changes: dict[str, Any] = {"steps": 60, "checkpoint_every": 100, "sample_every": 0, "validate_every": 0}
    changes |= {"parent": str(small_parent), "parent_hash": hash_folder(small_parent)[0]}
    alone, together = make_run("alone", **changes), make_run("together", sharded=True, **changes)
    launcher = launch(together)
    wait_until(trained(together, 3), 300)
    os.kill(launcher.pid, signal.SIGTERM)
    assert launcher.wait(120) == 76
    (saved,) = (together / "checkpoints").iterdir()
    assert not (together / "error.json").exists()

    launcher = launch(together)
    wait_until(trained(together, len(lines(together / "metrics.jsonl")) + 3), 300)
    both = trainers(launcher)
    both[1].kill()
    assert launcher.wait(120) == 1
    assert error_of(together) == {
        "sentence": "Process 2 of 2 ended (signal 9), and the others with it; the log says more.",
        "retry": True,
    }
    assert all(is_gone(each) for each in both)

    assert launch(together).wait(300) == 0
    run_training(alone)
    losses = [[line["loss"] for line in lines(folder / "metrics.jsonl")] for folder in (alone, together)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    resumed = [line for line in lines(together / "events.jsonl") if line["kind"] == "resumed"]
    assert [(each["step"], each["processes"]) for each in resumed] == [(int(saved.name[5:]), 2)] * 2


@pytest.mark.processes
def test_trainers_die_with_their_launcher(make_run: MakeRun, launch: Launch) -> None:
    folder = make_run(steps=5000, sample_every=0, validate_every=0)
    launcher = launch(folder)
    wait_until(trained(folder, 1), 300)
    both = trainers(launcher)
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    wait_until(lambda: all(is_gone(each) for each in both), 20)


@pytest.mark.processes
def test_what_the_main_process_refuses_is_what_the_group_says(make_run: MakeRun, launch: Launch) -> None:
    folder = make_run()
    settings = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**settings, "learning_rate": "fast"}))
    assert launch(folder).wait(120) == 77
    assert error_of(folder) == {"sentence": "Learning rate must be a number.", "retry": False}


def test_main_process_saves_for_as_long_as_it_takes_once_all_were_asked_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.1)
    seconds = [1, 0]

    def start(rank: int, *_: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", f"import sys, time; time.sleep({seconds[rank]}); sys.exit(76)"])

    monkeypatch.setattr(processes, "_start", start)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert processes.train_together(2, tmp_path) == 76
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not (tmp_path / "error.json").exists()


def test_more_processes_than_gpus_are_refused() -> None:
    assert [own_gpu(rank, 2) for rank in (0, 1)] == [0, 1]
    with pytest.raises(RunRefused, match="this machine has 2"):
        own_gpu(2, 2)
