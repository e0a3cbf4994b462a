"""A child process of ours: started, watched, stopped and reaped, with its output in a log file."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from config.embedded.account import OURSELVES, Account, wrap
from config.embedded.problem import Problem

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Program:
    """What to run, and how to know that it is up.

    `prepare` runs before each start and may raise Problem; `is_ready` is asked until it says True, for at most `ready_seconds`.
    `stop_signal` ends it in order, `death_signal` is what the kernel sends it when this process dies. A server is stopped after
    everything that uses it. It has `stop_seconds`, and `saving_seconds` more while processes of it live in sessions of their own,
    as a trainer does. `to_terminal` shows its output to the person instead of keeping it in a log.
    """

    name: str
    arguments: list[str]
    is_ready: Callable[[int], bool]
    prepare: Callable[[], None] = lambda: None
    account: Account = OURSELVES
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    folder: Path = PROJECT
    is_server: bool = False
    to_terminal: bool = False
    stop_seconds: float = 4.5
    saving_seconds: float = 0.0
    ready_seconds: float = 60.0


class Child:
    """One run after the other of a Program. Start it from the main thread: the kernel's watch is over the starting thread."""

    def __init__(self, program: Program, data_dir: Path) -> None:
        self.program = program
        self.data_dir = data_dir
        self.log = data_dir / "logs" / f"{program.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    def start(self) -> None:
        """Starts the program in a session and process group of its own; returns at once."""
        self.program.prepare()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                wrap(self.program.arguments, self.program.account, self.program.death_signal),
                stdin=subprocess.DEVNULL,
                stdout=None if self.program.to_terminal else log,
                stderr=None if self.program.to_terminal else log,
                env={**os.environ, **self.program.environment},
                cwd=self.program.folder,
                start_new_session=True,
            )
        self.started = time.monotonic()

    def is_alive(self) -> bool:
        """Whether it runs; a dead one is reaped."""
        return self.process is not None and self.process.poll() is None

    def is_ready(self) -> bool:
        return self.is_alive() and self.process is not None and self.program.is_ready(self.process.pid)

    def wait_ready(self, pause: Callable[[float], None] = time.sleep) -> None:
        """Returns when it answers; raises Problem, with the end of its log, when it ends or takes too long.

        `pause` waits between two looks, and may raise to give up.
        """
        deadline = time.monotonic() + self.program.ready_seconds
        while not self.is_ready():
            if not self.is_alive():
                raise Problem(
                    f"{self.program.name} ended while it started. Its log is {self.log}; it ends with:\n{self.log_tail()}"
                )
            if time.monotonic() > deadline:
                raise Problem(
                    f"{self.program.name} did not answer within {self.program.ready_seconds:.0f} s. "
                    f"Its log is {self.log}; it ends with:\n{self.log_tail()}"
                )
            pause(0.02)

    def log_tail(self, lines: int = 8) -> str:
        """The last lines of its log."""
        with suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4000))
            return "\n".join("  " + line for line in log.read().decode(errors="replace").splitlines()[-lines:])
        return ""

    def ask_to_stop(self) -> None:
        """Sends the stop signal; returns at once."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.program.stop_signal)

    def stop(self, seconds: float | None = None) -> None:
        """Stops it in order within `seconds`; else at once, by SIGKILL to its whole process group. Reaps it."""
        if self.process is None:
            return
        self.ask_to_stop()
        if not self._ends_within(self.program.stop_seconds if seconds is None else seconds) and self.program.is_server:
            # Postgres's immediate shutdown takes its backends along; what was committed is recovered at the next start.
            self.process.send_signal(signal.SIGQUIT)
            self._ends_within(0.5)
        self.kill_group()
        self.process.kill()
        self.process.wait()

    def _ends_within(self, seconds: float) -> bool:
        assert self.process is not None
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def has_sessions(self) -> bool:
        """Whether it has processes below it in other sessions than its own."""
        with suppress(psutil.Error, OSError):
            below = psutil.Process(self.pid).children(recursive=True)
            return any(os.getsid(each.pid) != self.pid for each in below)
        return False

    def kill_group(self) -> None:
        """Ends what the program left behind in its process group."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
