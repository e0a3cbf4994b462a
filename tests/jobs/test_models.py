"""What the database itself refuses."""

import uuid

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from jobs.models import JobAttempt, OutboxMessage, Sweep
from tests.jobs.factories import make_job, make_running_job

pytestmark = pytest.mark.django_db

LEASE = {"token": uuid.uuid4(), "lease_until": timezone.now()}


@pytest.mark.parametrize(
    ("constraint", "fields"),
    [
        ("job_lease_iff_running", {"state": "running", "attempt": 1}),
        ("job_lease_iff_running", {"state": "running", "attempt": 1, "token": LEASE["token"]}),
        ("job_lease_iff_running", {"state": "queued", **LEASE}),
        ("job_lease_iff_running", {"state": "succeeded", "finished_at": timezone.now(), **LEASE}),
        ("job_attempts_capped", {"attempt": 6, "max_attempts": 5}),
        ("job_finished_iff_final", {"state": "succeeded"}),
        ("job_finished_iff_final", {"state": "failed"}),
        ("job_finished_iff_final", {"state": "cancelled"}),
        ("job_finished_iff_final", {"state": "paused", "finished_at": timezone.now()}),
        ("job_lease_iff_running", {"state": "paused", **LEASE}),
        ("job_finished_iff_final", {"state": "queued", "finished_at": timezone.now()}),
        ("job_finished_iff_final", {"state": "running", "attempt": 1, "finished_at": timezone.now(), **LEASE}),
    ],
)
def test_database_refuses_job(constraint, fields):
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        make_job(**fields)


def test_database_refuses_unknown_state():
    # Every other rule would refuse it too, in whatever order they are looked at.
    with pytest.raises(IntegrityError, match="job_"), transaction.atomic():
        make_job(state="asleep")


def test_database_refuses_second_job_of_a_key():
    make_job(unique_key="batch 1")
    with pytest.raises(IntegrityError, match="unique_key"), transaction.atomic():
        make_job(unique_key="batch 1")


def attempt(job, **fields):
    return JobAttempt.objects.create(**{"job": job, "number": 1, "token": uuid.uuid4(), "worker": "w", **fields})


@pytest.mark.parametrize(
    ("constraint", "first", "second"),
    [
        ("attempt_number_once", {"outcome": "lost", "ended_at": timezone.now()}, {"number": 1}),
        ("attempt_one_under_way", {}, {"number": 2}),
        (
            "token",
            {"token": LEASE["token"], "outcome": "lost", "ended_at": timezone.now()},
            {"number": 2, "token": LEASE["token"]},
        ),
        (
            "attempt_ended_iff_outcome",
            {"outcome": "lost", "ended_at": timezone.now()},
            {"number": 2, "outcome": "lost"},
        ),
        (
            "attempt_ended_iff_outcome",
            {"outcome": "lost", "ended_at": timezone.now()},
            {"number": 2, "ended_at": timezone.now()},
        ),
    ],
)
def test_database_refuses_attempt(constraint, first, second):
    job = make_running_job()
    attempt(job, **first)
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        attempt(job, **second)


def test_database_refuses_second_doorbell_of_a_job():
    job = make_job()
    OutboxMessage.objects.create(job=job)
    with pytest.raises(IntegrityError), transaction.atomic():
        OutboxMessage.objects.create(job=job)


def test_database_refuses_second_row_of_sweeps():
    with pytest.raises(IntegrityError, match="sweep_has_one_row"), transaction.atomic():
        Sweep.objects.create(id=2)
