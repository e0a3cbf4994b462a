"""Runs one job in this process: claim, handler, end."""

import logging
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any
from uuid import UUID

from django.db import connection

from jobs import attempts
from jobs.context import LOST_CONNECTION, Cancelled, JobContext, JobFailed, LeaseLost, Paused, Released
from jobs.doorbell import ring
from jobs.handlers import Handler, UnknownKind, find_handler
from jobs.heartbeat import Heartbeat
from jobs.models import Job
from jobs.processes import Holder

logger = logging.getLogger(__name__)

# How long an end is tried against a database that is away. Long before, the reaper takes over if the lease runs out.
PERSIST_SECONDS = 600
NEWEST_SCHEMA = 32_767

# The heartbeat of what this process does now, for the signal that tells it to stop.
_running: Heartbeat | None = None
_stopping = False


def execute(
    job_id: UUID, holder: Holder, *, heartbeat: bool = True, may_kill: bool = False, in_turn: bool = True
) -> bool:
    """Claims the job, or `in_turn` what goes before it in its queue, and runs it to the end of this attempt; False when there was
    nothing to claim."""
    if _stopping:
        return False
    first = Job.objects.first_in_line(job_id) if in_turn else job_id
    if first != job_id and (claimed := _claim(first, holder)):
        # Its turn comes later; if this ring is lost, the sweeper rings again.
        ring([job_id])
    else:
        # Where this worker cannot claim what goes first, nobody waits for that.
        claimed = _claim(job_id, holder)
    if claimed is None:
        return False
    job, handler = claimed
    if handler is None:
        attempts.fail(job, f"This version of Atelier does not know how to do “{job.kind}”.")
        return True
    logger.info("Job %s (%s), attempt %d.", job.pk, job.kind, job.attempt)
    _run(JobContext(job), handler, heartbeat=heartbeat, may_kill=may_kill)
    return True


def _claim(job_id: UUID, holder: Holder) -> tuple[Job, Handler | None] | None:
    """The job under this process's lease, with its handler if its kind is known; None when there was nothing to claim."""
    kind = Job.objects.filter(pk=job_id).values_list("kind", flat=True).first()
    if kind is None:
        return None
    handler: Handler | None = None
    with suppress(UnknownKind):
        handler = find_handler(kind)
    job = attempts.claim(job_id, holder, schema=handler.schema if handler else NEWEST_SCHEMA)
    return (job, handler) if job is not None else None


def stop_running() -> None:
    """This process is about to be stopped: nothing new is begun, and what runs is given back soon; told again, at once.
    Signal-safe."""
    global _stopping
    _stopping = True
    if _running is not None:
        _running.release_soon()


def _run(context: JobContext, handler: Handler, *, heartbeat: bool, may_kill: bool) -> None:
    global _running
    pulse = Heartbeat(context, stall_seconds=handler.stall_seconds, may_kill=may_kill) if heartbeat else None
    _running = pulse
    job = context.job
    end: Callable[[], bool]
    try:
        with pulse or nullcontext():
            # Not twice, which would be a wish to hurry.
            if _stopping and pulse is not None and not context.is_released.is_set():
                pulse.release_soon()
            end = _outcome(context, handler)
            # Within the heartbeat: the lease lives on while a database that is away is waited for.
            if not _persist(end, context):
                logger.warning("Attempt %d of job %s is not the one that counts any more.", job.attempt, job.pk)
    finally:
        _running = None


def _outcome(context: JobContext, handler: Handler) -> Callable[[], bool]:
    """Runs the handler; returns the write that ends the attempt."""
    job = context.job
    try:
        result: dict[str, Any] = handler.run(context) or {}
    except Cancelled:
        return lambda: attempts.cancel(job)
    except Paused:
        return lambda: attempts.pause(job)
    except Released:
        return lambda: attempts.release(job)
    except LeaseLost:
        return lambda: False
    except JobFailed as failure:
        sentence, may_retry, detail = failure.sentence, failure.retry, traceback.format_exc()
        return lambda: attempts.fail(job, sentence, detail=detail, retry=may_retry)
    except Exception as error:
        # The edge of foreign code: whatever a handler did not expect ends its attempt, and never the worker.
        logger.exception("Job %s (%s) ended with an unexpected error.", job.pk, job.kind)
        sentence, detail = _unexpected(error), traceback.format_exc()
        return lambda: attempts.fail(job, sentence, detail=detail, retry=True)
    return lambda: attempts.succeed(job, result)


def _unexpected(error: Exception) -> str:
    if isinstance(error, LOST_CONNECTION):
        return "The database went away in the middle of it."
    return f"It stopped with an unexpected error ({type(error).__name__}). Its attempts have the details."


def _persist(end: Callable[[], bool], context: JobContext) -> bool:
    """Writes the end, however often the database goes away meanwhile. A commit whose answer was lost is recognised."""
    if connection.in_atomic_block:
        return end()
    deadline, pause, interrupted = time.monotonic() + PERSIST_SECONDS, 0.1, False
    while True:
        try:
            if connection.connection is not None and not connection.is_usable():
                connection.close()
            return end() or (interrupted and _has_ended(context))
        except LOST_CONNECTION:
            interrupted = True
            connection.close()
            if time.monotonic() > deadline:
                raise
            logger.warning("The end of job %s waits for the database.", context.job.pk)
            time.sleep(pause)
            pause = min(2.0, pause * 2)


def _has_ended(context: JobContext) -> bool:
    return bool(context.job.attempts.filter(token=context.token).exclude(outcome__in=["", "lost"]).exists())
