"""Child processes that do the work of a job: watched, logged, ended with the job, and never left behind."""

import atexit
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from django.conf import settings

from jobs.context import Cancelled, JobContext, Paused, Released
from jobs.warm import CAN_FORK, LARGE_PAGES, LEASH, LOOK_SECONDS, PARENT_VARIABLE, NoWarmth, Nursery, WarmProgram

logger = logging.getLogger(__name__)

Program: TypeAlias = "subprocess.Popen[bytes] | WarmProgram"

# By module: what has been imported stays, since the next job of the kind is likely to need it too.
_nurseries: dict[str, Nursery] = {}


def run_child(
    context: JobContext,
    argv: Sequence[str],
    *,
    log_path: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_tick: Callable[[], None] | None = None,
    tick_seconds: float = 1.0,
    grace_seconds: float = 20,
    warm: str | None = None,
) -> int:
    """Runs a program to its end and returns its exit status (negative: the signal that ended it).

    Its output is appended to `log_path`; `env` is added to ours, with ATELIER_PARENT_PID. `on_tick` is called every
    `tick_seconds`, and a last time after the end. Call it from the main thread. When the job is cancelled or paused the child
    gets SIGTERM, `grace_seconds` later SIGKILL, and Cancelled or Paused is raised; when the worker is told to
    stop, the same with JOB_STOP_SECONDS and Released, and SIGKILL at once when it is told again; when the lease is lost, SIGKILL and LeaseLost. Its whole
    process group ends with it, and with this process, whatever ends that.

    `warm` names a module that imports what `argv`, which is then `python -m PROGRAM ARGUMENTS`, needs: from the second time on the
    program begins without its imports (see `jobs.warm`), unless WARM_TRAINER is off.
    """
    with _child(argv, log_path, cwd, env, warm, context.check) as process:
        context.child_group = process.pid
        try:
            status = _watch(process, context, on_tick, tick_seconds)
        except (Cancelled, Paused, Released) as wish:
            _end_gently(process, settings.JOB_STOP_SECONDS if isinstance(wish, Released) else grace_seconds, context)
            raise
        finally:
            _kill_group(process)
            context.child_group = None
    if on_tick is not None:
        on_tick()
    context.check()
    return status


@contextmanager
def _child(
    argv: Sequence[str],
    log_path: Path,
    cwd: Path | None,
    env: Mapping[str, str] | None,
    warm: str | None,
    check: Callable[[], None],
) -> Iterator[Program]:
    """The program in a session of its own, and a guard that kills its process group when this process dies."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    environment = {**LARGE_PAGES, **os.environ, **(env or {}), PARENT_VARIABLE: str(os.getpid())}
    process: Program | None = None
    if warm is not None and CAN_FORK and settings.WARM_TRAINER:
        process = _start_warm(warm, argv, log_path, cwd, environment, check)
    if process is None:
        process = _start_cold(argv, log_path, cwd, environment)
    guard = subprocess.Popen(
        [sys.executable, "-S", "-E", str(LEASH), "guard", str(process.pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _kill_group(process)
        with suppress(BrokenPipeError):
            guard.communicate(b"done")


def _start_cold(
    argv: Sequence[str], log_path: Path, cwd: Path | None, environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    with log_path.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-S", "-E", str(LEASH), "hold", str(os.getpid()), *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environment,
            start_new_session=True,
        )


def _start_warm(
    module: str,
    argv: Sequence[str],
    log_path: Path,
    cwd: Path | None,
    environment: Mapping[str, str],
    check: Callable[[], None],
) -> WarmProgram | None:
    """None where it cannot be forked; whoever starts it cold sees in its log why. Raises what `check` raises meanwhile."""
    nursery = _nurseries.get(module)
    if nursery is not None and not nursery.is_alive():
        nursery.stop()
        nursery = None
    if nursery is None:
        nursery = _nurseries[module] = Nursery(module, cwd)
    try:
        return nursery.start(argv, log_path=log_path, cwd=cwd, env=environment, while_waiting=check)
    except NoWarmth:
        logger.warning("What would start %s warm is gone; it is started cold.", module)
    except BaseException:
        # It would fork a program that nobody waits for.
        nursery.stop()
        raise
    return None


@atexit.register
def _stop_nurseries() -> None:
    while _nurseries:
        _nurseries.popitem()[1].stop()


def _watch(process: Program, context: JobContext, on_tick: Callable[[], None] | None, tick_seconds: float) -> int:
    """Returns the exit status; raises what `check` raises, soon after the flag is set."""
    next_tick = time.monotonic() + tick_seconds
    while True:
        try:
            return process.wait(timeout=min(LOOK_SECONDS, tick_seconds))
        except subprocess.TimeoutExpired:
            context.check()
        if on_tick is not None and time.monotonic() >= next_tick:
            on_tick()
            next_tick = time.monotonic() + tick_seconds


def _end_gently(process: Program, seconds: float, context: JobContext) -> None:
    """SIGTERM to the group, and patience, unless the lease is lost meanwhile."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not context.is_lost.is_set():
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.1)
            return


def _kill_group(process: Program) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
