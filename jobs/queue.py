"""Asking for work, taking the wish back, asking again."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from accounts.models import User
from jobs.doorbell import ring
from jobs.handlers import UnknownKind, find_handler
from jobs.models import Job, JobEvent, JobState, OutboxMessage

BLOCKED_ENDS = (JobState.FAILED, JobState.CANCELLED)


def enqueue(
    kind: str,
    payload: dict[str, Any],
    *,
    label: str,
    url: str = "",
    created_by: User | None = None,
    unique_key: str | None = None,
    after: Sequence[Job] = (),
    run_after: datetime | None = None,
    priority: int = 0,
) -> Job:
    """A new job in the caller's transaction; its doorbell rings on commit.

    With `after` it runs only when those jobs have succeeded, and fails with a sentence when one of them does not. With a
    `unique_key` that a job has already, that job is returned. Raises UnknownKind where no handler is registered.
    """
    handler = find_handler(kind)
    fields: dict[str, Any] = {
        "kind": kind,
        "queue": handler.queue,
        "schema": handler.schema,
        "max_attempts": handler.max_attempts,
        "payload": payload,
        "label": label[:200],
        "url": url,
        "created_by": created_by,
        "priority": priority,
    }
    if run_after is not None:
        fields["run_after"] = run_after
    with transaction.atomic():
        if unique_key is None:
            job, is_new = Job.objects.create(**fields), True
        else:
            job, is_new = Job.objects.get_or_create(unique_key=unique_key, defaults=fields)
        if is_new:
            # The database gave the moments.
            job.refresh_from_db(fields=["created_at", "run_after"])
            OutboxMessage.objects.create(job=job)
            add_event(job, "queued", by=created_by)
            _wait_for(job, after)
            ring_on_commit([job.pk])
    return job


def request_cancel(job: Job, *, by: User | None) -> bool:
    """Cancels a queued or paused job at once; a running one is asked, and sees it at its next heartbeat. False when it is over."""
    with transaction.atomic():
        _lock(job)
        open_job = Job.objects.filter(pk=job.pk, cancel_requested_at=None)
        waiting = {JobState.QUEUED: "before it started", JobState.PAUSED: "while it was paused"}
        if any(
            open_job.filter(state=state).update(
                state=JobState.CANCELLED,
                finished_at=Now(),
                cancel_requested_at=Now(),
                cancel_requested_by=by,
                error=f"Cancelled {when}.",
            )
            for state, when in waiting.items()
        ):
            OutboxMessage.objects.filter(job=job).delete()
            add_event(job, "cancelled", by=by)
            job.state = JobState.CANCELLED
            fail_dependents(job)
            changed = True
        else:
            asked = open_job.filter(state=JobState.RUNNING).update(cancel_requested_at=Now(), cancel_requested_by=by)
            if changed := bool(asked):
                add_event(job, "cancel_requested", by=by)
    job.refresh_from_db()
    return changed


def request_pause(job: Job, *, by: User | None) -> bool:
    """Pauses a queued job at once; a running one is asked, and sees it at its next heartbeat. False when it is over, paused,
    or was asked to stop or to wait before. `retry` resumes it."""
    with transaction.atomic():
        _lock(job)
        open_job = Job.objects.filter(pk=job.pk, cancel_requested_at=None, pause_requested_at=None)
        wish = {"pause_requested_at": Now(), "pause_requested_by": by}
        if open_job.filter(state=JobState.QUEUED).update(state=JobState.PAUSED, **wish):
            OutboxMessage.objects.filter(job=job).delete()
            add_event(job, "paused", by=by)
            changed = True
        elif changed := bool(open_job.filter(state=JobState.RUNNING).update(**wish)):
            add_event(job, "pause_requested", by=by)
    job.refresh_from_db()
    return changed


def retry(job: Job, *, by: User | None) -> bool:
    """Queues a failed, cancelled or paused job again, with as many attempts as it had at first, and those that failed only because
    they waited for it; what it was asked to do once is not asked again, unless it was only paused. False when it is not over, or waits for a job that has not succeeded."""
    with transaction.atomic():
        blocked = job.blockers.filter(state__in=BLOCKED_ENDS).exists()
        changed = not blocked and _queue_again(job, by)
        if changed:
            for dependent in _failed_for(job):
                retry(dependent, by=by)
    job.refresh_from_db()
    return changed


def add_event(job: Job | UUID, kind: str, *, attempt: int | None = None, by: User | None = None, **detail: Any) -> None:
    """One more row in the job's history."""
    job_id, number = (
        (job, attempt or 0) if isinstance(job, UUID) else (job.pk, job.attempt if attempt is None else attempt)
    )
    if by is not None:
        detail["by"] = str(by)
    JobEvent.objects.create(job_id=job_id, kind=kind, attempt=number, detail=detail)


def fail_dependents(job: Job) -> None:
    """Fails whatever waits for a job that will not succeed, and what waits for those. Call it within a transaction."""
    waiting = Job.objects.filter(blockers=job, state=JobState.QUEUED).order_by("pk").select_for_update(of=("self",))
    for dependent in waiting:
        error = f"It waited for “{job}”, which {'was cancelled' if job.state == JobState.CANCELLED else 'failed'}."
        if Job.objects.filter(pk=dependent.pk, state=JobState.QUEUED).update(
            state=JobState.FAILED, finished_at=Now(), error=error
        ):
            dependent.state = JobState.FAILED
            OutboxMessage.objects.filter(job=dependent).delete()
            add_event(dependent, "blocker_failed", blocker=str(job.pk))
            fail_dependents(dependent)


def ring_on_commit(job_ids: Iterable[UUID]) -> None:
    """Rings when the transaction is through; without one, now."""
    transaction.on_commit(partial(ring, list(job_ids)), robust=True)


def _lock(job: Job) -> None:
    """Until the transaction ends, the job keeps its state: it could pass from one to another between two looks."""
    Job.objects.select_for_update(no_key=True).filter(pk=job.pk).first()


def _wait_for(job: Job, after: Sequence[Job]) -> None:
    """Locks the blockers, so that one of them cannot fail unseen between this look and our commit."""
    if not after:
        return
    blockers = list(
        Job.objects.filter(pk__in=[other.pk for other in after]).order_by("pk").select_for_update(no_key=True)
    )
    job.blockers.set(blockers)
    failed = next((blocker for blocker in blockers if blocker.state in BLOCKED_ENDS), None)
    if failed is not None:
        fail_dependents(failed)
        job.refresh_from_db()


def _queue_again(job: Job, by: User | None) -> bool:
    attempts, once = 1, frozenset[str]()
    with suppress(UnknownKind):
        handler = find_handler(job.kind)
        attempts, once = handler.max_attempts, handler.once
    payload = Job.objects.values_list("payload", flat=True).get(pk=job.pk)
    for states, event in (((JobState.PAUSED,), "resumed"), (BLOCKED_ENDS, "retried")):
        # A pause takes no wish back.
        forgotten = sorted(once & payload.keys()) if event == "retried" else []
        if Job.objects.filter(pk=job.pk, state__in=states).update(
            state=JobState.QUEUED,
            payload={key: value for key, value in payload.items() if key not in forgotten},
            max_attempts=F("attempt") + attempts,
            run_after=Now(),
            finished_at=None,
            cancel_requested_at=None,
            cancel_requested_by=None,
            pause_requested_at=None,
            pause_requested_by=None,
            error="",
            progress_note="",
            # Whoever comes back to it later does not hurry; a pause takes no wish back.
            priority=0 if event == "retried" else F("priority"),
        ):
            OutboxMessage.objects.get_or_create(job=job)
            detail: dict[str, Any] = {"forgotten": forgotten} if forgotten else {}
            add_event(job, event, by=by, **detail)
            ring_on_commit([job.pk])
            return True
    return False


def _failed_for(job: Job) -> list[Job]:
    """Dependents whose last event says that they failed for a blocker."""
    failed = Job.objects.filter(blockers=job, state=JobState.FAILED).order_by("pk")
    return [one for one in failed if one.events.values_list("kind", flat=True).last() == "blocker_failed"]
