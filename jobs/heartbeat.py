"""Keeps an attempt's lease alive from a thread of its own, with a database connection of its own."""

import logging
import os
import signal
import threading
import time
from contextlib import suppress

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from jobs.attempts import beat, release
from jobs.context import JobContext

logger = logging.getLogger(__name__)

# How long a handler may take to stop on its own when the worker is told to, besides what a child of it has
# (JOB_STOP_SECONDS); the supervisor's patience is a little longer.
RELEASE_SECONDS = 3.0
LOOK_SECONDS = 0.1


class Heartbeat:
    """`with Heartbeat(context, stall_seconds=...):` beats until the block ends.

    A process whose handler gives no sign any more, or goes on long after its lease was lost, is killed: in a worker
    (`may_kill`), where the pool puts a fresh one in its place.
    """

    def __init__(self, context: JobContext, *, stall_seconds: float, may_kill: bool = False) -> None:
        self.context = context
        self.stall_seconds = stall_seconds
        self.may_kill = may_kill
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat {context.job.pk}", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=5)

    def release_soon(self) -> None:
        """The worker is told to stop: ask the handler to, and give the job back without it if it does not. Told
        again, a child that the handler has is killed at once. Signal-safe."""
        if self.context.is_released.is_set():
            self._hurry.set()
        self.context.is_released.set()
        self._wake.set()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if self.context.is_released.is_set():
                    self._see_off()
                    return
                self._beat()
                if self.context.is_lost.is_set():
                    self._watch_the_lost()
                    return
                if time.monotonic() - self.context.last_sign > self.stall_seconds:
                    logger.error("Job %s gives no sign; its process is given up.", self.context.job.pk)
                    self._end_process()
                    return
                self._wake.wait(settings.JOB_HEARTBEAT_SECONDS)
                self._wake.clear()
        finally:
            connection.close()

    def _beat(self) -> None:
        """A database that is away for less than the lease is no trouble; for longer, the reaper decides."""
        try:
            self.context.feel(beat(self.context.job.pk, self.context.token))
        except (DatabaseError, InterfaceError) as error:
            logger.warning("A heartbeat of job %s did not get through: %s", self.context.job.pk, error)
            with suppress(DatabaseError, InterfaceError):
                connection.close()
            # Sooner than the usual pace, for the lease is running out.
            self._wake.wait(min(0.5, settings.JOB_HEARTBEAT_SECONDS))

    def _watch_the_lost(self) -> None:
        if not self._stop.wait(2 * settings.JOB_LEASE_SECONDS) and self.may_kill:
            logger.error("Job %s goes on without a lease; its process is given up.", self.context.job.pk)
            self._end_process()

    def _see_off(self) -> None:
        if self._ends_by_itself():
            return
        self._kill_child()
        if self._hurry.is_set() and self._stop.wait(RELEASE_SECONDS):
            return
        with suppress(DatabaseError, InterfaceError):
            release(self.context.job)
        # From here on the fence stops the old attempt's writes; the process itself has nothing left to do.
        self.context.is_lost.set()
        self._end_process()

    def _ends_by_itself(self) -> bool:
        """Waits for the handler, with the lease kept alive: nobody else may begin what a child still saves."""
        seconds = RELEASE_SECONDS + (settings.JOB_STOP_SECONDS if self.context.child_group is not None else 0)
        until = time.monotonic() + seconds
        next_beat = 0.0
        while time.monotonic() < until and not self._hurry.is_set() and not self.context.is_lost.is_set():
            if time.monotonic() >= next_beat:
                self._beat()
                next_beat = time.monotonic() + settings.JOB_HEARTBEAT_SECONDS
            if self._stop.wait(LOOK_SECONDS):
                return True
        return False

    def _kill_child(self) -> None:
        if self.context.child_group is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.context.child_group, signal.SIGKILL)

    def _end_process(self) -> None:
        self._kill_child()
        if self.may_kill:
            os.kill(os.getpid(), signal.SIGKILL)
