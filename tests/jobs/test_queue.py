"""Asking for work, taking it back, asking again; and the whole way of a job within one process."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from accounts.models import User
from jobs import attempts
from jobs.handlers import UnknownKind
from jobs.models import Job, JobState, OutboxMessage
from jobs.processes import this_process
from jobs.queue import enqueue, request_cancel, request_pause, retry
from jobs.sweeper import heal
from jobs.testing import run_due_jobs
from tests.jobs import work  # noqa: F401 - Registers the kinds.

pytestmark = pytest.mark.django_db


def add(**more) -> Job:
    return enqueue("tests.add", {"a": 2, "b": 3}, label="Add", **more)


def fail(**payload) -> Job:
    return enqueue("tests.fail", payload, label="Fail")


def events(job: Job) -> list[str]:
    return list(job.events.values_list("kind", flat=True))


def states(*jobs: Job) -> list[str]:
    return [Job.objects.get(pk=job.pk).state for job in jobs]


def test_enqueued_job_runs_once_and_keeps_its_result():
    job = add()
    assert run_due_jobs() == [job]
    assert run_due_jobs() == []
    job.refresh_from_db()
    assert (job.state, job.result, job.attempt) == (JobState.SUCCEEDED, {"sum": 5}, 1)
    assert events(job) == ["queued", "claimed", "wrote", "succeeded"]
    assert not hasattr(job, "outbox")


def test_job_of_a_rolled_back_request_never_was():
    with pytest.raises(ZeroDivisionError), transaction.atomic():  # noqa: PT012 - What comes before the error is the point.
        add()
        raise ZeroDivisionError
    assert (Job.objects.count(), OutboxMessage.objects.count()) == (0, 0)


def test_unique_key_gives_the_job_that_has_it():
    first = add(unique_key="batch 7")
    run_due_jobs()
    assert add(unique_key="batch 7") == first
    assert run_due_jobs() == []


def test_unknown_kind_is_refused_at_once():
    with pytest.raises(UnknownKind):
        enqueue("tests.nothing", {}, label="Nothing")


def test_job_for_later_waits():
    job = add(run_after=timezone.now() + timedelta(hours=1))
    assert run_due_jobs() == []
    assert run_due_jobs(skip_waits=True) == [job]


def test_higher_priority_goes_first():
    low, high = add(), add(priority=5)
    assert run_due_jobs() == [high, low]


def test_sentence_of_a_failure_reaches_the_job_and_no_retry_follows():
    job = fail(sentence="The set has no prompts.")
    run_due_jobs(skip_waits=True)
    job.refresh_from_db()
    assert (job.state, job.error, job.attempt) == (JobState.FAILED, "The set has no prompts.", 1)


def test_failure_worth_another_try_is_tried_until_the_attempts_are_used_up():
    job = fail(sentence="The disk is full.", retry=True)
    assert run_due_jobs() == [job]
    job.refresh_from_db()
    assert job.state == JobState.QUEUED
    assert job.run_after > job.created_at
    run_due_jobs(skip_waits=True)
    job.refresh_from_db()
    assert (job.state, job.attempt, job.error) == (JobState.FAILED, 3, "The disk is full.")
    assert events(job).count("will_retry") == 2


def test_unexpected_error_is_kept_for_operators_and_not_shown():
    job = fail()
    run_due_jobs(skip_waits=True)
    job.refresh_from_db()
    assert (job.state, job.attempt) == (JobState.FAILED, 3)
    assert "secret detail" not in job.error
    assert "secret detail" in job.attempts.first().error


def test_kind_unknown_to_the_worker_fails_with_a_sentence():
    job = add()
    Job.objects.filter(pk=job.pk).update(kind="tests.of_the_future")
    run_due_jobs()
    job.refresh_from_db()
    assert (job.state, job.error) == (
        JobState.FAILED,
        "This version of Atelier does not know how to do “tests.of_the_future”.",
    )


def test_payload_of_a_newer_form_stays_queued():
    job = add()
    Job.objects.filter(pk=job.pk).update(schema=2)
    assert run_due_jobs() == []
    job.refresh_from_db()
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)


def test_cancelled_while_queued_never_runs():
    person = User.objects.create_user("curator@example.org")
    job = add(created_by=person)
    assert request_cancel(job, by=person)
    assert not request_cancel(job, by=person)
    assert run_due_jobs() == []
    assert (job.state, job.cancel_requested_by) == (JobState.CANCELLED, person)
    assert events(job) == ["queued", "cancelled"]


def test_retried_job_has_as_many_attempts_as_at_first():
    job = fail()
    run_due_jobs(skip_waits=True)
    assert retry(job, by=None)
    assert not retry(job, by=None)
    assert (job.state, job.attempt, job.max_attempts, job.error) == (JobState.QUEUED, 3, 6, "")
    run_due_jobs(skip_waits=True)
    assert states(job) == ["failed"]
    assert list(job.attempts.values_list("number", flat=True)) == [1, 2, 3, 4, 5, 6]


def test_dependent_runs_after_all_its_blockers():
    first, second = add(), add(run_after=timezone.now() + timedelta(hours=1))
    last = add(after=[first, second])
    assert run_due_jobs() == [first]
    assert run_due_jobs(skip_waits=True) == [second, last]


def test_failure_of_a_blocker_fails_whatever_waits_and_a_retry_revives_it():
    blocker = fail(sentence="No.")
    middle = add(after=[blocker])
    last = add(after=[middle])
    run_due_jobs()
    assert states(blocker, middle, last) == ["failed", "failed", "failed"]
    middle.refresh_from_db()
    assert middle.error == "It waited for “Fail”, which failed."
    assert not retry(middle, by=None)
    Job.objects.filter(pk=blocker.pk).update(kind="tests.add", payload={"a": 1, "b": 1})
    blocker.refresh_from_db()
    assert retry(blocker, by=None)
    assert run_due_jobs() == [blocker, middle, last]
    assert states(blocker, middle, last) == ["succeeded", "succeeded", "succeeded"]


def test_dependent_of_a_job_that_failed_before_fails_at_once():
    blocker = add()
    request_cancel(blocker, by=None)
    job = add(after=[blocker])
    assert (job.state, job.error) == (JobState.FAILED, "It waited for “Add”, which was cancelled.")
    assert not OutboxMessage.objects.exists()


def claimed(job: Job) -> Job:
    held = attempts.claim(job.pk, this_process("w"), schema=1)
    assert held is not None
    return held


def test_paused_job_waits_with_all_that_waits_for_it_until_it_is_resumed():
    person = User.objects.create_user("operator@example.org")
    job = add()
    after = add(after=[job])
    assert request_pause(job, by=person)
    assert not request_pause(job, by=person)
    assert (job.state, job.pause_requested_by, hasattr(job, "outbox")) == (JobState.PAUSED, person, False)
    heal()
    assert run_due_jobs(skip_waits=True) == []
    assert states(job, after) == [JobState.PAUSED, JobState.QUEUED]
    assert retry(job, by=person)
    assert run_due_jobs() == [job, after]
    assert events(job) == ["queued", "paused", "resumed", "claimed", "wrote", "succeeded"]


def test_running_job_is_asked_to_pause_and_its_attempt_does_not_count():
    job = add()
    held = claimed(job)
    assert request_pause(job, by=None)
    assert (job.state, job.is_pausing) == (JobState.RUNNING, True)
    assert attempts.beat(held.pk, held.token) is attempts.Pulse.PAUSE
    assert attempts.pause(held)
    job.refresh_from_db()
    assert (job.state, job.attempt, job.max_attempts, job.error) == (JobState.PAUSED, 1, 6, "")
    assert job.attempts.get().outcome == "paused"


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (attempts.release, "paused"),
        (attempts.lose, "lost"),
        (lambda held: attempts.fail(held, "The disk is full.", retry=True), "failed"),
    ],
)
def test_attempt_that_ends_otherwise_leaves_the_job_paused_if_that_was_asked_for(end, outcome):
    job = add()
    held = claimed(job)
    request_pause(job, by=None)
    assert end(held)
    job.refresh_from_db()
    assert (job.state, job.attempts.get().outcome, hasattr(job, "outbox")) == (JobState.PAUSED, outcome, False)
    assert events(job)[-1] == "paused"


def test_cancel_goes_before_a_pause():
    job = add()
    held = claimed(job)
    request_pause(job, by=None)
    assert request_cancel(job, by=None)
    assert attempts.beat(held.pk, held.token) is attempts.Pulse.CANCEL
    assert attempts.pause(held)
    assert states(job) == [JobState.CANCELLED]


def test_what_is_over_cannot_be_paused():
    job = add()
    run_due_jobs()
    assert not request_pause(job, by=None)
    assert states(job) == [JobState.SUCCEEDED]
