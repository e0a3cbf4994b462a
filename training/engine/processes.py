"""`python -m training.engine.processes COUNT RUN_DIR`: train one run with several processes of this machine.

What `torchrun` does, as a worker needs it: the exit status is the trainer's own (see `__main__`), all processes stay in
this one's group and die with it, however it ends, and a SIGTERM reaches all of them, so that the run stops with its progress
saved. Nothing of torch is imported here.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from training.engine.lifeline import PARENT_VARIABLE, die_with_parent
from training.engine.run_files import write_json

Processes = Sequence["subprocess.Popen[bytes]"]

# What a process has to end by itself once another has failed; the main one may be writing a checkpoint.
GRACE_SECONDS = 30.0
LOOK_SECONDS = 0.2
# Exit statuses, see `__main__`.
FAULT, STOPPED = 1, 76


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.engine.processes", description="Train one run together.")
    parser.add_argument("count", type=int, metavar="COUNT", help="how many processes, one for each GPU")
    parser.add_argument("folder", type=Path, metavar="RUN_DIR", help="the folder that holds run.json")
    given = parser.parse_args(arguments)
    die_with_parent()
    return train_together(given.count, given.folder)


def train_together(count: int, folder: Path) -> int:
    """Start so many trainers of the run as one group, and return what the main one returns; where another has failed
    first, what that one did."""
    port = _free_port()
    processes = [_start(rank, count, port, folder) for rank in range(count)]

    def pass_on(number: int, frame: object) -> None:
        for each in processes:
            if each.poll() is None:
                each.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    try:
        return _watch(processes, folder)
    finally:
        for each in processes:
            each.kill()
            each.wait()


def _start(rank: int, count: int, port: int, folder: Path) -> "subprocess.Popen[bytes]":
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {
        # Together they take the cores that one would take alone.
        "OMP_NUM_THREADS": str(max(1, cores // count)),
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        PARENT_VARIABLE: str(os.getpid()),
    }
    return subprocess.Popen([sys.executable, "-m", "training.engine", str(folder)], env=environment)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _watch(processes: Processes, folder: Path) -> int:
    """The exit status of the group."""
    main_process = processes[0]
    while main_process.poll() is None:
        # All stop together, and the main one saves: how long that may take is for whoever asked.
        failed = next((each for each in processes if each.poll() not in (None, 0, STOPPED)), None)
        if failed is not None:
            return _end_after(failed, processes, folder)
        _wait(main_process, LOOK_SECONDS)
    if main_process.returncode == 0:
        # They have trained what it published, and have nothing left to do.
        for each in processes:
            _wait(each, GRACE_SECONDS)
    return main_process.returncode


def _end_after(failed: "subprocess.Popen[bytes]", processes: Processes, folder: Path) -> int:
    """The exit status once another than the main process has failed, which may have ended all of them for one reason."""
    main_process = processes[0]
    deadline = time.monotonic() + GRACE_SECONDS
    while main_process.poll() is None and time.monotonic() < deadline:
        _wait(main_process, LOOK_SECONDS)
    if main_process.poll() not in (None, FAULT):
        return int(main_process.returncode)
    # The main process knows no more than that it lost the other.
    number, status = processes.index(failed) + 1, failed.returncode
    ended = f"signal {-status}" if status < 0 else f"exit status {status}"
    sentence = f"Process {number} of {len(processes)} ended ({ended}), and the others with it; the log says more."
    write_json(folder / "error.json", {"sentence": sentence, "retry": True})
    return FAULT


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


if __name__ == "__main__":
    sys.exit(main())
