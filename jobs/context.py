"""What a handler has in its hands: the job, progress, the wish to cancel or to pause, and the fence around its writes."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import InterfaceError, OperationalError, connection, transaction

from jobs.attempts import Pulse, Report, beat
from jobs.models import Job, JobState
from jobs.queue import add_event

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 1.0
LOST_CONNECTION = (OperationalError, InterfaceError)


class JobFailed(Exception):
    """The work cannot be done. `sentence` tells a person why; `retry` says whether another attempt may help."""

    def __init__(self, sentence: str, retry: bool = False) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.retry = retry


class Cancelled(Exception):
    """Somebody wants the job cancelled. Clean up and let it through."""


class Paused(Exception):
    """Somebody wants the job to wait. Keep what the next attempt goes on from, and let it through."""


class LeaseLost(Exception):
    """This attempt is no longer the one that counts: stop, and write nothing."""


class Released(LeaseLost):
    """The worker is told to stop. The attempt still counts until the job is given back: stop soon, and let it through."""


class JobContext:
    """One attempt, as its handler sees it. Of one thread, but for the flags, which the heartbeat's thread sets."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.payload: dict[str, Any] = job.payload
        self.attempt: int = job.attempt
        assert job.token is not None
        self.token = job.token
        self.is_cancelled = threading.Event()
        self.is_paused = threading.Event()
        self.is_lost = threading.Event()
        self.is_released = threading.Event()
        self.last_sign = time.monotonic()
        # The process group of a child that works on files for us: it has to be dead before anybody else gets the job.
        self.child_group: int | None = None
        self._reported_at = -PROGRESS_SECONDS

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Notes how far it is, at most once a second but for the end; a heartbeat too. A database that is away is no error."""
        self.last_sign = now = time.monotonic()
        if now - self._reported_at < PROGRESS_SECONDS and done != total:
            return
        self._reported_at = now
        try:
            self.feel(beat(self.job.pk, self.token, Report(done, total, note)))
        except LOST_CONNECTION:
            if connection.in_atomic_block:
                raise
            connection.close()

    def check(self) -> None:
        """Raises Cancelled, Paused or LeaseLost when the attempt should stop. Cheap: call it in every step."""
        self.last_sign = time.monotonic()
        if self.is_lost.is_set():
            raise LeaseLost(f"Attempt {self.attempt} of job {self.job.pk} lost its lease.")
        if self.is_cancelled.is_set():
            raise Cancelled(f"Job {self.job.pk} was cancelled.")
        if self.is_paused.is_set():
            raise Paused(f"Job {self.job.pk} was paused.")
        if self.is_released.is_set():
            raise Released(f"The worker of job {self.job.pk} is stopping.")

    @contextmanager
    def fenced(self) -> Iterator[Job]:
        """A transaction that holds the job's row under this attempt's token; yields the row as it is now.

        All writes of results happen in it. Raises LeaseLost before the block when the attempt is ours no more. Rides out
        a database restart before the block; one within it raises OperationalError, and nothing of the block is stored.
        """
        self.last_sign = time.monotonic()
        self._reconnect()
        with transaction.atomic():
            current = (
                Job.objects.select_for_update().filter(pk=self.job.pk, token=self.token, state=JobState.RUNNING).first()
            )
            if current is None:
                self.is_lost.set()
                raise LeaseLost(f"Attempt {self.attempt} of job {self.job.pk} lost its lease.")
            yield current

    def event(self, kind: str, **detail: Any) -> None:
        """Adds a row to the job's history."""
        with self.fenced() as job:
            add_event(job, kind, **detail)

    def feel(self, pulse: Pulse) -> None:
        """Takes in what a heartbeat learned."""
        if pulse is Pulse.LOST:
            self.is_lost.set()
        elif pulse is Pulse.CANCEL:
            self.is_cancelled.set()
        elif pulse is Pulse.PAUSE:
            self.is_paused.set()

    def _reconnect(self) -> None:
        """Makes sure of a usable connection, for as long as the lease is not lost; the reaper ends the wait otherwise."""
        if connection.in_atomic_block:
            return
        pause = 0.1
        while True:
            try:
                if connection.connection is not None and not connection.is_usable():
                    connection.close()
                connection.ensure_connection()
                return
            except LOST_CONNECTION:
                logger.warning("The database is away; job %s waits for it.", self.job.pk)
                self.check()
                time.sleep(pause)
                pause = min(2.0, pause * 2)
