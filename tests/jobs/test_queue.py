"""Asking for work, and the whole way of a job within one process."""

import pytest

from jobs.models import Job, JobState
from jobs.queue import enqueue
from jobs.testing import run_due_jobs
from tests.jobs import work  # noqa: F401 - Registers the kinds.

pytestmark = pytest.mark.django_db


def events(job: Job) -> list[str]:
    return list(job.events.values_list("kind", flat=True))


def test_enqueued_job_runs_once_and_keeps_its_result():
    job = enqueue("tests.add", {"a": 2, "b": 3}, label="Add")
    assert run_due_jobs() == [job]
    assert run_due_jobs() == []
    job.refresh_from_db()
    assert (job.state, job.result, job.attempt) == (JobState.SUCCEEDED, {"sum": 5}, 1)
    assert events(job) == ["queued", "claimed", "wrote", "succeeded"]
    assert not hasattr(job, "outbox")
