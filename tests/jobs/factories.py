"""Rows of jobs for tests, as the layer itself would leave them."""

from typing import Any

from django.db.models.functions import Now

from jobs.models import Job, Queue


def make_job(**fields: Any) -> Job:
    """A queued job of the kind tests.add, without a doorbell."""
    values = {"kind": "tests.add", "queue": Queue.CPU, "label": "Add", "payload": {"a": 1, "b": 1}, **fields}
    job = Job.objects.create(**values)
    job.refresh_from_db()
    return job


def make_running_job(**fields: Any) -> Job:
    """A job under a lease that ran out a second ago, as a dead worker leaves it; without its attempt's row."""
    from uuid import uuid4

    values = {"state": "running", "attempt": 1, "token": uuid4(), "lease_until": Now(), **fields}
    return make_job(**values)
