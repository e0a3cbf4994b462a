"""One worker's try at a job, from the claim to its end. Every write is a conditional UPDATE on the attempt's token."""

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from jobs.models import AttemptOutcome, Job, JobAttempt, JobState, OutboxMessage
from jobs.processes import Holder
from jobs.queue import add_event, fail_dependents, ring_on_commit

# The database's clock decides (the one that Django's Now() reads, since a transaction may be older than its statement), and the row lock decides between two claims: whoever comes second finds no queued row.
CLAIM = """
UPDATE jobs_job SET
    state = 'running', attempt = attempt + 1, token = gen_random_uuid(), worker = %(worker)s,
    lease_until = statement_timestamp() + make_interval(secs => %(lease)s), code_version = %(code)s, started_at = coalesce(started_at, statement_timestamp())
WHERE id = %(id)s AND state = 'queued' AND run_after <= statement_timestamp() AND cancel_requested_at IS NULL
    AND attempt < max_attempts AND schema <= %(schema)s
    AND NOT EXISTS (
        SELECT 1 FROM jobs_job_blockers link JOIN jobs_job blocker ON blocker.id = link.to_job_id
        WHERE link.from_job_id = jobs_job.id AND blocker.state <> 'succeeded'
    )
RETURNING *
"""

# One statement extends the lease, notes the progress if there is any, and reads the wish to cancel or to pause, be it only to give way
# to a job that still waits.
HEARTBEAT = """
WITH mine AS (
    UPDATE jobs_job SET
        lease_until = statement_timestamp() + make_interval(secs => %(lease)s),
        progress_done = coalesce(%(done)s::int, progress_done),
        progress_total = coalesce(%(total)s::int, progress_total),
        progress_note = coalesce(%(note)s, progress_note)
    WHERE id = %(id)s AND token = %(token)s AND state = 'running'
    RETURNING cancel_requested_at IS NOT NULL AS cancelled,
        pause_requested_at IS NOT NULL
        OR EXISTS (SELECT 1 FROM jobs_job urgent WHERE urgent.id = jobs_job.yields_to_id AND urgent.state = 'queued') AS paused
), noted AS (
    UPDATE jobs_jobattempt SET
        heartbeat_at = statement_timestamp(),
        progress_from = coalesce(progress_from, %(done)s::int),
        progress_from_at = coalesce(progress_from_at, CASE WHEN %(done)s::int IS NULL THEN NULL ELSE statement_timestamp() END)
    WHERE token = %(token)s AND EXISTS (SELECT 1 FROM mine)
)
SELECT cancelled, paused FROM mine
"""


class Pulse(Enum):
    """What a heartbeat learned."""

    FINE = "fine"
    CANCEL = "cancel"
    PAUSE = "pause"
    LOST = "lost"


@dataclass(frozen=True)
class Report:
    """Progress to note with a heartbeat."""

    done: int
    total: int
    note: str = ""


def claim(job_id: UUID, holder: Holder, *, schema: int) -> Job | None:
    """The job, running under a new token, if it is due and nobody else has it; the doorbell is taken down."""
    values = {
        "id": job_id,
        "worker": holder.worker,
        "lease": settings.JOB_LEASE_SECONDS,
        "code": settings.CODE_VERSION[:64],
        "schema": schema,
    }
    with transaction.atomic():
        job = next(iter(Job.objects.raw(CLAIM, values)), None)
        if job is None or job.token is None:
            return None
        JobAttempt.objects.create(
            job=job,
            number=job.attempt,
            token=job.token,
            worker=holder.worker,
            code_version=job.code_version,
            host=holder.host,
            pid=holder.pid,
            pid_started=holder.started,
        )
        OutboxMessage.objects.filter(job=job).delete()
        add_event(job, "claimed", worker=holder.worker)
    return job


def beat(job_id: UUID, token: UUID, report: Report | None = None) -> Pulse:
    """Extends the attempt's lease; says whether somebody wants it cancelled or paused, or whether it is ours no more."""
    values: dict[str, Any] = {
        "id": job_id,
        "token": token,
        "lease": settings.JOB_LEASE_SECONDS,
        "done": report.done if report else None,
        "total": report.total if report else None,
        "note": report.note[:200] if report else None,
    }
    with connection.cursor() as cursor:
        cursor.execute(HEARTBEAT, values)
        row = cursor.fetchone()
    if row is None:
        return Pulse.LOST
    cancelled, paused = row
    return Pulse.CANCEL if cancelled else Pulse.PAUSE if paused else Pulse.FINE


def succeed(job: Job, result: dict[str, Any]) -> bool:
    """Ends the attempt and the job well, and rings for whatever waited for it. False when the attempt is ours no more."""
    with transaction.atomic():
        if not _end(
            job, AttemptOutcome.SUCCEEDED, state=JobState.SUCCEEDED, result=result, error="", finished_at=Now()
        ):
            return False
        add_event(job, "succeeded")
        ring_on_commit(job.dependents.values_list("pk", flat=True))
    return True


def fail(job: Job, sentence: str, *, detail: str = "", retry: bool = False) -> bool:
    """Ends the attempt badly: queued again after a pause if that may help and attempts are left, else failed for good."""
    with transaction.atomic():
        if retry and _queue_again(job, AttemptOutcome.FAILED, detail=detail or sentence, error=sentence):
            return True
        changed = _end(
            job,
            AttemptOutcome.FAILED,
            detail=detail or sentence,
            state=JobState.FAILED,
            error=sentence,
            finished_at=Now(),
        )
        if changed:
            add_event(job, "failed", error=sentence)
            job.state = JobState.FAILED
            fail_dependents(job)
    return changed


def cancel(job: Job) -> bool:
    """Ends an attempt that was asked to stop."""
    with transaction.atomic():
        changed = _end(
            job,
            AttemptOutcome.CANCELLED,
            state=JobState.CANCELLED,
            error="Cancelled while it ran.",
            finished_at=Now(),
        )
        if changed:
            add_event(job, "cancelled")
            job.state = JobState.CANCELLED
            fail_dependents(job)
    return changed


def pause(job: Job) -> bool:
    """Ends an attempt that was asked to wait: it does not count, and nothing runs the job until somebody resumes it. One that only
    gives way to a more urgent job is due again at once."""
    with transaction.atomic():
        wishes = _wishes(job)
        if "cancel" in wishes:
            return cancel(job)
        if wishes == {"give way"}:
            return _give_back(job, "gave_way")
        changed = _end(job, AttemptOutcome.PAUSED, state=JobState.PAUSED, max_attempts=F("max_attempts") + 1)
        if changed:
            add_event(job, "paused")
    return changed


def release(job: Job) -> bool:
    """Gives the job back, because this worker was told to stop: it is due at once, and the attempt does not count."""
    with transaction.atomic():
        wishes = _wishes(job)
        if "cancel" in wishes:
            return cancel(job)
        if "pause" in wishes:
            return pause(job)
        return _give_back(job, "released")


def lose(job: Job) -> bool:
    """Ends an attempt whose worker is dead or silent: queued again, or failed when it was the last. For the reaper."""
    with transaction.atomic():
        if "cancel" in _wishes(job):
            return cancel(job)
        if _queue_again(job, AttemptOutcome.LOST, detail="The worker died or fell silent.", error=""):
            return True
        sentence = "Its workers died or fell silent as often as is allowed, so it was given up."
        changed = _end(
            job,
            AttemptOutcome.LOST,
            detail="The worker died or fell silent.",
            state=JobState.FAILED,
            error=sentence,
            finished_at=Now(),
        )
        if changed:
            add_event(job, "failed", error=sentence)
            job.state = JobState.FAILED
            fail_dependents(job)
    return changed


def pause_seconds(attempt: int, outcome: str) -> float:
    """How long to wait before the next attempt: none after the first loss, then 2, 4, 8 s ... and at most 10 minutes."""
    failures = attempt if outcome == AttemptOutcome.FAILED else attempt - 1
    return float(min(600, settings.JOB_BACKOFF_SECONDS * 2 ** (failures - 1))) if failures > 0 else 0.0


def _queue_again(job: Job, outcome: AttemptOutcome, *, detail: str, error: str) -> bool:
    """False when the attempts are used up, and when the attempt is ours no more. Paused where somebody asked for that."""
    current = Job.objects.select_for_update().filter(pk=job.pk, token=job.token, state=JobState.RUNNING).first()
    if current is None or current.cancel_requested_at is not None:
        return False
    further = current.progress_done > current.progress_mark
    if current.attempt >= current.max_attempts and not further:
        return False
    seconds = 0.0 if further and outcome == AttemptOutcome.LOST else pause_seconds(current.attempt, outcome)
    waits = current.pause_requested_at is not None
    _end(
        job,
        outcome,
        detail=detail,
        state=JobState.PAUSED if waits else JobState.QUEUED,
        error=error,
        max_attempts=F("max_attempts") + (1 if further else 0),
        progress_mark=max(current.progress_mark, current.progress_done),
        run_after=Now() + timedelta(seconds=seconds),
    )
    if waits:
        add_event(job, "paused")
    else:
        _hang_up(job, "lost" if outcome == AttemptOutcome.LOST else "will_retry", seconds=seconds)
    return True


def _give_back(job: Job, event: str) -> bool:
    changed = _end(
        job,
        AttemptOutcome.RELEASED,
        state=JobState.QUEUED,
        max_attempts=F("max_attempts") + 1,
        run_after=Now(),
    )
    if changed:
        _hang_up(job, event, seconds=0)
    return changed


def _hang_up(job: Job, event: str, *, seconds: float) -> None:
    OutboxMessage.objects.get_or_create(job=job)
    add_event(job, event, seconds=round(seconds, 1))
    if not seconds:
        ring_on_commit([job.pk])


def _end(job: Job, outcome: AttemptOutcome, *, detail: str = "", **changes: Any) -> bool:
    """Takes token and lease away and closes the attempt's row, in the caller's transaction; False when it is ours no more."""
    if job.token is None:
        return False
    mine = Job.objects.filter(pk=job.pk, token=job.token, state=JobState.RUNNING)
    if not mine.update(token=None, lease_until=None, yields_to=None, **changes):
        return False
    JobAttempt.objects.filter(token=job.token, outcome="").update(outcome=outcome, ended_at=Now(), error=detail)
    return True


def _wishes(job: Job) -> set[str]:
    """What somebody wants of the attempt. Locks the row: no wish comes between this look and the end of the transaction,
    since one on a job that is then queued or paused would be neither seen nor taken back."""
    mine = Job.objects.select_for_update(no_key=True).filter(pk=job.pk, token=job.token)
    asked = mine.values_list("cancel_requested_at", "pause_requested_at", "yields_to").first() or (None, None, None)
    return {wish for wish, at in zip(("cancel", "pause", "give way"), asked, strict=True) if at is not None}
