"""What keeps the promise that no job is lost: the outbox is rung again, and leases that ran out are reaped.

Any number of sweepers may run; an advisory lock lets one at a time through, and every change is conditional anyway.
A sweeper that is frozen rather than dead keeps the lock, so it is passed over once nobody has swept for a while.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now

from jobs import attempts
from jobs.doorbell import ring, waiting_messages
from jobs.models import Job, JobState, OutboxMessage, Sweep, Worker
from jobs.processes import host_id, is_dead
from jobs.queue import BLOCKED_ENDS, fail_dependents

logger = logging.getLogger(__name__)

# Any constant, known to nobody else who takes advisory locks in this database.
LOCK = 0x61_74_65_6C_01
# A message rung this long ago and not claimed may be lost, if the broker holds fewer than there should be.
UNCLAIMED_SECONDS = 10
# Rung again without knowing better, where the broker cannot say how many messages wait.
BLIND_SECONDS = 300
RING_AT_ONCE = 500
FORGET_WORKERS = timedelta(minutes=10)


def sweep() -> dict[str, int] | None:
    """One sweep; returns what it did, None when another sweeper is at it."""
    with _alone() as is_alone:
        if not is_alone and not is_overdue():
            return None
        done = {"reaped": reap(), "healed": heal(), "rung": ring_again()}
        Worker.objects.filter(seen_at__lt=Now() - FORGET_WORKERS).delete()
        Sweep.objects.update_or_create(id=1, defaults={"swept_at": Now()})
    if any(done.values()):
        logger.info("Swept: %(reaped)d reaped, %(healed)d healed, %(rung)d rung.", done)
    return done


def is_overdue() -> bool:
    """Whether nobody has ended a sweep for some time: scheduler, control worker or broker are away, or a sweeper hangs."""
    late = Now() - timedelta(seconds=3 * settings.JOB_SWEEP_SECONDS)
    return not Sweep.objects.filter(swept_at__gte=late).exists()


def reap() -> int:
    """Ends attempts whose lease ran out, and those whose process is certainly dead."""
    reaped = 0
    for job_id in _lost_jobs():
        with transaction.atomic():
            # Skipped are rows that a fenced write holds right now: their attempt is alive.
            job = Job.objects.select_for_update(skip_locked=True).filter(pk=job_id, state=JobState.RUNNING).first()
            if job is not None and (_is_expired(job) or holder_is_dead(job)) and attempts.lose(job):
                logger.warning("Attempt %d of job %s was lost with %s.", job.attempt, job.pk, job.worker)
                reaped += 1
    return reaped


def reap_if_dead(job_id: UUID) -> bool:
    """Ends the job's attempt if its process is certainly dead, so that a redelivered message need not wait for the lease."""
    with transaction.atomic():
        job = Job.objects.select_for_update(skip_locked=True).filter(pk=job_id, state=JobState.RUNNING).first()
        return job is not None and holder_is_dead(job) and attempts.lose(job)


def holder_is_dead(job: Job) -> bool:
    """Whether the process that runs the job was on this machine, and is gone."""
    attempt = job.attempts.filter(token=job.token).first() if job.token else None
    return attempt is not None and is_dead(attempt.host, attempt.pid, attempt.pid_started)


def heal() -> int:
    """Gives queued jobs without a doorbell theirs, and fails those whose blocker will not succeed."""
    silent = Job.objects.filter(state=JobState.QUEUED, outbox=None)
    made = OutboxMessage.objects.bulk_create(
        [OutboxMessage(job=job) for job in silent[:RING_AT_ONCE]], ignore_conflicts=True
    )
    failed = 0
    stuck = Job.objects.filter(dependents__state=JobState.QUEUED, state__in=BLOCKED_ENDS).distinct()
    for blocker in stuck[:RING_AT_ONCE]:
        with transaction.atomic():
            fail_dependents(blocker)
            failed += 1
    return len(made) + failed


def ring_again() -> int:
    """Rings for what was never rung, and for what was rung long ago if the broker seems to have lost it."""
    due = OutboxMessage.objects.filter(job__in=Job.objects.due())
    fresh = list(due.filter(published_at=None).values_list("job", flat=True)[:RING_AT_ONCE])
    rung = ring(fresh, patient=True)
    if rung < len(fresh):
        return rung
    lost = list(_lost_messages())
    return rung + ring(lost, patient=True)


def _lost_messages() -> Iterator[UUID]:
    """A queue that holds at least as many messages as jobs wait has lost none: they stand behind a busy worker."""
    waiting = OutboxMessage.objects.filter(job__in=Job.objects.due(), published_at__isnull=False)
    for queue, expected in Counter(waiting.values_list("job__queue", flat=True)).items():
        present = waiting_messages(queue)
        if present is not None and present >= expected:
            continue
        seconds = BLIND_SECONDS if present is None else UNCLAIMED_SECONDS
        late = waiting.filter(job__queue=queue, published_at__lt=Now() - timedelta(seconds=seconds))
        yield from late.order_by("-job__priority", "id").values_list("job", flat=True)[:RING_AT_ONCE]


def _lost_jobs() -> list[UUID]:
    running = Job.objects.filter(state=JobState.RUNNING)
    here = running.filter(attempts__outcome="", attempts__host=host_id()).values_list(
        "pk", "attempts__host", "attempts__pid", "attempts__pid_started"
    )
    dead = [job_id for job_id, host, pid, started in here if is_dead(host, pid, started)]
    return [*Job.objects.expired().values_list("pk", flat=True), *dead]


def _is_expired(job: Job) -> bool:
    return Job.objects.expired().filter(pk=job.pk).exists()


@contextmanager
def _alone() -> Iterator[bool]:
    """Whether this session got the lock; a session that dies lets go of it by itself."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])
        (locked,) = cursor.fetchone()
        try:
            yield locked
        finally:
            if locked and connection.is_usable():
                cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
