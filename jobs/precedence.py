"""Which of the jobs that wait goes first, and what gives way to it.

Messages come in the order in which they were sent, so whoever takes one looks for a job of the same queue that goes before
it (`Job.objects.first_in_line`). A job that gives way keeps what it goes on from and is queued again at once, behind the one that it gave way to.
"""

from django.db import transaction
from django.db.models import Max, Q
from django.db.models.functions import Now

from accounts.models import User
from jobs.handlers import gives_way
from jobs.models import Job, JobState, Queue
from jobs.queue import add_event, ring_on_commit
from jobs.workers import live_workers

MOST = 32_767


def put_first(job: Job, *, by: User | None) -> bool:
    """Puts a queued job before all others of its queue; False where it is not queued. Where no worker of the queue is idle, the running job
    that began last, of a kind that can, is asked to give way; its `yields_to` says to what."""
    with transaction.atomic():
        rows = Job.objects.filter(queue=job.queue, state__in=[JobState.QUEUED, JobState.RUNNING])
        locked = Job.objects.select_for_update(no_key=True).filter(pk=job.pk, state=JobState.QUEUED).first()
        if locked is None:
            return False
        highest = rows.exclude(pk=job.pk).aggregate(highest=Max("priority"))["highest"] or 0
        priority = min(max(highest + 1, locked.priority), MOST)
        # Nor does it wait any longer for another attempt.
        Job.objects.filter(pk=job.pk).update(priority=priority, run_after=Now())
        add_event(locked, "put_first", by=by)
        ring_on_commit([job.pk])
        _make_room(locked)
    job.refresh_from_db()
    return True


def keep_asking() -> None:
    """For urgent jobs that still wait although something could give way: a worker that was idle is gone, or took something else."""
    for job in Job.objects.due().filter(priority__gt=0).order_by("-priority", "created_at"):
        with transaction.atomic():
            if locked := Job.objects.select_for_update(no_key=True).filter(pk=job.pk, state=JobState.QUEUED).first():
                _make_room(locked)


def _make_room(job: Job) -> None:
    if Job.objects.due().filter(pk=job.pk).exists() and not _has_idle_worker(job.queue):
        _ask_one_to_give_way(job)


def _has_idle_worker(queue: str) -> bool:
    workers = sum(queue in worker.queues.split(", ") for worker in live_workers())
    return workers > Job.objects.filter(queue=queue, state=JobState.RUNNING).count()


def _ask_one_to_give_way(job: Job) -> None:
    running = Job.objects.filter(queue=job.queue, state=JobState.RUNNING)
    if running.filter(yields_to=job).exists():
        return
    free = running.filter(
        Q(yields_to=None) | ~Q(yields_to__state=JobState.QUEUED),
        kind__in=gives_way(Queue(job.queue)),
        priority__lt=Job.objects.filter(pk=job.pk).values("priority"),
        cancel_requested_at=None,
        pause_requested_at=None,
    )
    for victim in free.order_by("priority", "-started_at"):
        # Somebody else may have asked something of it since, or it has ended and a worker is free.
        if free.filter(pk=victim.pk).update(yields_to=job):
            add_event(victim, "asked_to_give_way", to=str(job))
            return
