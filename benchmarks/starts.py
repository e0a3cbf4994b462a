"""The trainer's process: seconds from its start to its first step, with an empty cache; with a full one after a SIGKILL, from a
checkpoint; and then forked from a process that has imported torch, as a worker does that has trained before."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.warm import Nursery, WarmProgram

ROOT = Path(__file__).resolve().parents[1]


def measure_starts(run: Path) -> Iterator[dict[str, Any]]:
    """One measurement of each, on a run's folder that nobody has trained, with an empty cache."""
    folder = run.parent
    argv = [sys.executable, "-m", "training.engine", str(run)]
    nursery = Nursery("training.engine.warm", ROOT)

    def start_cold() -> "subprocess.Popen[bytes] | WarmProgram":
        return subprocess.Popen(argv, cwd=ROOT)

    def start_warm() -> "subprocess.Popen[bytes] | WarmProgram":
        return _fork(nursery, argv, folder)

    # The first has no run, and pays for the imports.
    _fork(nursery, [*argv[:-1], str(folder / "nothing")], folder).wait()
    for what, start in (
        ("process start to first step, empty cache", start_cold),
        ("SIGKILL to first new step, from a checkpoint", start_cold),
        ("SIGKILL to first new step, from a checkpoint, begun warm", start_warm),
    ):
        before = _steps_in(run)
        started = time.perf_counter()
        process = start()
        # After a kill the run goes back to its last checkpoint: a step is new where its line is new.
        while _steps_in(run) <= before and process.poll() is None:
            time.sleep(0.02)
        yield {"unit": "seconds", "what": what, "value": round(time.perf_counter() - started, 2)}
        while _steps_in(run) < before + 5 and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    nursery.stop()


def _fork(nursery: Nursery, argv: list[str], folder: Path) -> WarmProgram:
    return nursery.start(argv, log_path=folder / "warm.log", cwd=ROOT, env=os.environ, while_waiting=lambda: None)


def _steps_in(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0
