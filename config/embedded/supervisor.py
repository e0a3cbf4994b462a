"""Keeps a set of child processes running until it is told to stop, and then leaves nothing behind."""

import ctypes
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from config.embedded.child import Child, Program
from config.embedded.leftovers import TOKEN, end_carriers, forget, new_token, reap_strangers, record
from config.embedded.problem import Problem

PR_SET_CHILD_SUBREAPER = 36
LOG_BYTES = 10 * 1024 * 1024
LONGEST_PAUSE = 30.0
SETTLED_SECONDS = 60.0
# A stop stays below ten seconds where nothing is saved: what works is killed after `Program.stop_seconds`. This is what the
# servers share once that has ended, since a database that flushes to a busy disk needs it.
SERVER_SECONDS = 4.0
# What a program has to note what a process of it saved.
SAID_SECONDS = 3.0


class StopAsked(BaseException):
    """SIGTERM, SIGINT or SIGHUP came: everything unwinds. A BaseException, so that no broad `except` swallows it."""


@dataclass
class _Watched:
    child: Child
    deaths: int = 0
    start_at: float | None = None


class Supervisor:
    """Runs programs as children, starts those again that die, and stops all in reverse order.

    Use it as `with Supervisor(data_dir).session() as supervisor:` while holding the data folder's lock, from the main thread.
    """

    def __init__(self, data_dir: Path, say: Callable[[str], None] = print) -> None:
        self.data_dir = data_dir
        self.say = say
        self.token = new_token()
        self._watched: list[_Watched] = []
        self._stops = 0
        self._looked_at_logs = 0.0

    @contextmanager
    def session(self) -> Iterator["Supervisor"]:
        """Takes over the signals; on the way out, however that comes about, everything is stopped and reaped."""
        os.environ[TOKEN] = self.token
        _adopt_orphans()
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield self
        finally:
            self.stop()
            del os.environ[TOKEN]
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self, *programs: Program) -> None:
        """Starts the programs together, and returns when all are ready. Raises Problem when one is not."""
        started = []
        for program in programs:
            watched = _Watched(Child(program, self.data_dir))
            self._watched.append(watched)
            watched.child.start()
            started.append(watched)
            self._record()
        for watched in started:
            watched.child.wait_ready(self.pause)

    def run_once(self, program: Program) -> None:
        """Runs a program to its end while the others are watched; raises Problem when it fails."""
        child = Child(program, self.data_dir)
        child.start()
        try:
            while child.is_alive():
                self.pause(0.05)
                self._look()
        finally:
            child.stop(0)
        if child.process is None or child.process.returncode != 0:
            if program.to_terminal:
                raise Problem(f"{program.name} failed; what it said stands above.")
            raise Problem(f"{program.name} failed. Its log is {child.log}; it ends with:\n{child.log_tail()}")

    def watch(self) -> None:
        """Watches until a stop is asked for; returns then."""
        try:
            while True:
                self._look()
                self.pause(0.2)
        except StopAsked:
            return

    def pause(self, seconds: float) -> None:
        """Sleeps; raises StopAsked when a stop is asked for."""
        if self._stops:
            raise StopAsked
        time.sleep(seconds)
        if self._stops:
            raise StopAsked

    def pids(self) -> dict[str, int]:
        """The process number of each child that has been started."""
        return {watched.child.program.name: watched.child.pid for watched in self._watched if watched.child.pid}

    def stop(self) -> None:
        """Stops everything: first all that works, together, then the servers in reverse order."""
        children = [watched.child for watched in reversed(self._watched)]
        workers = [child for child in children if not child.program.is_server]
        for child in workers:
            child.ask_to_stop()
        asked, began = self._stops, time.monotonic()
        for child in workers:
            until = began + child.program.stop_seconds
            latest = until + child.program.saving_seconds
            while child.is_alive() and self._stops <= max(asked, 1):
                if time.monotonic() >= until:
                    if until >= latest or not child.has_sessions():
                        break
                    # It has something to say of what was saved, too.
                    until = time.monotonic() + SAID_SECONDS
                time.sleep(0.02)
            child.stop(0)
        # Trainers run in sessions of their own, so their worker's process group does not hold them.
        end_carriers(self.token)
        ended = time.monotonic()
        for child in children:
            if child.program.is_server:
                child.stop(max(1.0, ended + SERVER_SECONDS - time.monotonic()))
        self._watched = []
        reap_strangers(set())
        forget(self.data_dir)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stops += 1

    def _look(self) -> None:
        now = time.monotonic()
        for watched in self._watched:
            if watched.start_at is not None:
                if now >= watched.start_at:
                    self._start_again(watched)
            elif not watched.child.is_alive():
                self._note_death(watched)
            elif watched.deaths and now - watched.child.started > SETTLED_SECONDS:
                watched.deaths = 0
        if now - self._looked_at_logs > 5:
            self._looked_at_logs = now
            reap_strangers(set(self.pids().values()))
            for path in (self.data_dir / "logs").glob("*.log"):
                cut_log(path)

    def _note_death(self, watched: _Watched) -> None:
        child = watched.child
        child.kill_group()
        watched.deaths += 1
        wait = 0.0 if watched.deaths == 1 else min(LONGEST_PAUSE, 0.5 * 2 ** (watched.deaths - 1))
        watched.start_at = time.monotonic() + wait
        code = child.process.returncode if child.process else 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        if watched.deaths < 4:
            self.say(f"{child.program.name} {how} and is started again.")
        else:
            self.say(
                f"{child.program.name} {how}, the {watched.deaths}th time in a row; next try in {wait:.0f} s. "
                f"Its log, {child.log}, ends with:\n{child.log_tail(3)}"
            )

    def _start_again(self, watched: _Watched) -> None:
        watched.start_at = None
        try:
            watched.child.start()
        except (Problem, OSError) as error:
            self.say(f"{watched.child.program.name} cannot be started: {error}")
        self._record()

    def _record(self) -> None:
        record(self.data_dir, self.token, self.pids())


def cut_log(path: Path, limit: int = LOG_BYTES) -> None:
    """Keeps a log below `limit` bytes, and the piece before as NAME.log.1. Children go on writing to the same file."""
    try:
        if path.stat().st_size > limit:
            shutil.copyfile(path, path.with_name(path.name + ".1"))
            os.truncate(path, 0)
    except OSError as error:
        print(f"{path} could not be shortened: {error.strerror}", file=sys.stderr)


def _adopt_orphans() -> None:
    """Asks the kernel to give us the descendants whose parent dies: many containers have nobody else who reaps them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
