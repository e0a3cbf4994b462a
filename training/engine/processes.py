"""`python -m training.engine.processes COUNT RUN_DIR`: train one run with several processes of this machine.

What `torchrun` does, as a worker needs it: the exit status is the trainer's own (see `__main__`), all processes stay in
this one's group and die with it, however it ends, and a SIGTERM reaches all of them, so that the run stops with its progress
saved. This one imports torch, and the others are forked from it: what takes seconds is done once, and not for each GPU.
"""

import argparse
import faulthandler
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Protocol

from generation.engine.importing import uncollected
from training.engine.__main__ import main as train
from training.engine.lifeline import PARENT_VARIABLE, die_with_parent
from training.engine.run_files import write_json

# What a process has to end by itself once another has failed; the main one may be writing a checkpoint.
GRACE_SECONDS = 30.0
LOOK_SECONDS, NAP_SECONDS = 0.2, 0.02
# Exit statuses, see `__main__`.
FAULT, STOPPED = 1, 76


class Process(Protocol):
    """As much of `subprocess.Popen` as is used here."""

    returncode: int | None

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int) -> None: ...
    def kill(self) -> None: ...


Processes = Sequence[Process]


class Forked:
    """A process that was forked from this one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal, or None while it runs."""
        if self.returncode is None:
            # A signal's handler asks in between, and either may be the one that is told.
            with suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises subprocess.TimeoutExpired after so many seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(NAP_SECONDS)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


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
    processes: list[Process] = []
    told: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        told.append(number)
        for each in processes:
            each.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    with uncollected():
        import_module("training.engine.warm")
    port = _free_port()
    # Nobody is to be told between its birth and its being listed.
    with _no_signal(signal.SIGTERM):
        for rank in range(0 if told else count):
            processes.append(_start(rank, count, port, folder))
    if not processes:
        return STOPPED
    try:
        return _watch(processes, folder)
    finally:
        for each in processes:
            each.kill()
            each.wait()


@contextmanager
def _no_signal(number: int) -> Iterator[None]:
    """The signal comes after this, if it comes meanwhile."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def _start(rank: int, count: int, port: int, folder: Path) -> Process:
    """Returns in this process alone: the fork ends as the trainer ends."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return Forked(pid)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Together they take the cores that one would take alone.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(count),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        **{PARENT_VARIABLE: str(parent)},
    )
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if sys.modules["training.engine.warm"].is_spoiled():
        os.execv(sys.executable, [sys.executable, "-m", "training.engine", str(folder)])  # noqa: S606 - There is no shell.
    faulthandler.enable()
    sys.exit(train([str(folder)]))


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
    return main_process.wait()


def _end_after(failed: Process, processes: Processes, folder: Path) -> int:
    """The exit status once another than the main process has failed, which may have ended all of them for one reason."""
    main_process = processes[0]
    deadline = time.monotonic() + GRACE_SECONDS
    while main_process.poll() is None and time.monotonic() < deadline:
        _wait(main_process, LOOK_SECONDS)
    if main_process.poll() not in (None, FAULT):
        return main_process.wait()
    # The main process knows no more than that it lost the other.
    number, status = processes.index(failed) + 1, failed.wait()
    ended = f"signal {-status}" if status < 0 else f"exit status {status}"
    sentence = f"Process {number} of {len(processes)} ended ({ended}), and the others with it; the log says more."
    write_json(folder / "error.json", {"sentence": sentence, "retry": True})
    return FAULT


def _wait(process: Process, seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


if __name__ == "__main__":
    sys.exit(main())
