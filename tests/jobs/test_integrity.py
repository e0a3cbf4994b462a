"""`verify` names what is wrong with jobs, and nothing else."""

import uuid

import pytest
from django.utils import timezone

from jobs.integrity import problems
from jobs.models import Job, JobAttempt, OutboxMessage
from jobs.queue import enqueue
from jobs.testing import run_due_jobs
from tests.jobs import work  # noqa: F401 - Registers the kinds.
from tests.jobs.factories import make_job

pytestmark = pytest.mark.django_db
LONG_AGO = "2020-01-01T00:00Z"


def test_sound_jobs_have_no_problems():
    enqueue("tests.add", {"a": 1, "b": 1}, label="Add")
    run_due_jobs()
    enqueue("tests.fail", {}, label="Fail")
    run_due_jobs()
    make_job()  # Without a doorbell, but so young that the sweeper may still come.
    assert list(problems()) == []


def old_job(**fields):
    job = make_job(**fields)
    Job.objects.filter(pk=job.pk).update(created_at=LONG_AGO)
    return job


def test_each_problem_is_named():
    old_job(label="silent")
    done = old_job(label="rings", state="succeeded", finished_at=timezone.now())
    OutboxMessage.objects.create(job=done)
    running = {"state": "running", "attempt": 1, "lease_until": LONG_AGO}
    old_job(label="unreaped", token=uuid.uuid4(), **running)
    stolen = old_job(label="stolen", token=uuid.uuid4(), **(running | {"lease_until": timezone.now()}))
    JobAttempt.objects.create(job=stolen, number=1, token=uuid.uuid4(), worker="w")
    old_job(label="miscounted", state="failed", finished_at=timezone.now(), attempt=2)
    blocker = old_job(label="blocker", state="failed", finished_at=timezone.now())
    stuck = old_job(label="stuck")
    OutboxMessage.objects.create(job=stuck)
    stuck.blockers.add(blocker)
    found = "\n".join(problems())
    for sentence in (
        "(silent) is queued, but nothing will ring for it",
        "(rings) is succeeded, but a doorbell is still kept",
        "(unreaped) runs under a lease that ran out at 2020-01-01 00:00:00 UTC",
        "(unreaped) counts 1 attempts, but has 0 rows",
        "is under way without holding the job",
        "(miscounted) counts 2 attempts, but has 0 rows",
        "(stuck) waits for a job that will not succeed",
    ):
        assert sentence in found
    assert "(blocker)" not in found
