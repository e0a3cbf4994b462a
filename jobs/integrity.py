"""What must hold of all jobs at any moment; `manage.py verify` prints what does not."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count, F, Max, Q
from django.db.models.functions import Now

from jobs.models import FINAL_STATES, Job, JobAttempt, JobState


def problems() -> Iterator[str]:
    """One sentence for each thing that is wrong; what is merely under way, within its grace, is not wrong."""
    grace = timedelta(seconds=2 * settings.JOB_LEASE_SECONDS + 5 * settings.JOB_SWEEP_SECONDS)
    silent = Job.objects.filter(state=JobState.QUEUED, outbox=None, created_at__lt=Now() - grace)
    for job in silent:
        yield f"Job {job.pk} ({job}) is queued, but nothing will ring for it."
    for job in Job.objects.exclude(state=JobState.QUEUED).exclude(outbox=None):
        yield f"Job {job.pk} ({job}) is {job.state}, but a doorbell is still kept for it."
    for job in Job.objects.filter(state=JobState.RUNNING, lease_until__lt=Now() - grace):
        yield f"Job {job.pk} ({job}) runs under a lease that ran out at {job.lease_until:%Y-%m-%d %H:%M:%S} UTC, and nobody reaped it."
    yield from _attempt_problems()
    for job in Job.objects.filter(state__in=FINAL_STATES, finished_at=None):
        yield f"Job {job.pk} ({job}) is {job.state}, but has no end."
    stuck = Job.objects.filter(
        state=JobState.QUEUED, blockers__state__in=[JobState.FAILED, JobState.CANCELLED], created_at__lt=Now() - grace
    )
    for job in stuck.distinct():
        yield f"Job {job.pk} ({job}) waits for a job that will not succeed."


def _attempt_problems() -> Iterator[str]:
    counted: Any = Job.objects.annotate(
        rows=Count("attempts", distinct=True),
        last=Max("attempts__number"),
        open_rows=Count("attempts", Q(attempts__outcome=""), distinct=True),
        good_rows=Count("attempts", Q(attempts__outcome="succeeded"), distinct=True),
    )
    for job in counted.exclude(rows=F("attempt")) | counted.filter(attempt__gt=0).exclude(last=F("attempt")):
        yield f"Job {job.pk} ({job}) counts {job.attempt} attempts, but has {job.rows} rows of attempts."
    for job in counted.filter(Q(state=JobState.RUNNING) & ~Q(open_rows=1)) | counted.filter(
        ~Q(state=JobState.RUNNING), open_rows__gt=0
    ):
        yield f"Job {job.pk} ({job}) is {job.state} with {job.open_rows} attempts under way."
    for job in counted.filter(
        Q(good_rows__gt=1) | (~Q(state=JobState.SUCCEEDED) & Q(good_rows=1, state__in=FINAL_STATES))
    ):
        yield f"Job {job.pk} ({job}) is {job.state} with {job.good_rows} attempts that succeeded."
    wrong = JobAttempt.objects.filter(outcome="").exclude(token=F("job__token"))
    for attempt in wrong:
        yield f"Attempt {attempt.number} of job {attempt.job_id} is under way without holding the job."
