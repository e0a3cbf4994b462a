"""Two that want the same: real threads, each with its own connection."""

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from jobs import attempts
from jobs.attempts import Pulse, beat, claim
from jobs.context import JobContext, LeaseLost
from jobs.models import Job, JobAttempt, JobState, Sweep
from jobs.processes import this_process
from jobs.queue import enqueue, request_cancel, request_pause
from jobs.sweeper import heal, reap, sweep
from tests.jobs import work  # noqa: F401 - Registers the kinds.

pytestmark = pytest.mark.django_db(transaction=True)


def together(count, action):
    """Runs the action in threads that start at the same moment; returns what each returned."""
    barrier = threading.Barrier(count)

    def run(number):
        try:
            connection.ensure_connection()
            barrier.wait(30)
            return action(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def new_job() -> Job:
    return enqueue("tests.add", {"a": 1, "b": 1}, label="Add")


def claimed_job() -> Job:
    return claim(new_job().pk, this_process("test"), schema=1)


def expire(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(lease_until=Now())
    time.sleep(0.01)


def test_one_of_eight_claims_wins():
    for _ in range(5):
        job = new_job()
        claims = together(8, lambda number, job=job: claim(job.pk, this_process(f"worker {number}"), schema=1))
        (winner,) = [one for one in claims if one]
        job.refresh_from_db()
        assert (job.attempt, job.token, job.worker) == (1, winner.token, winner.worker)
        assert job.attempts.count() == 1


def test_eight_requests_with_one_key_make_one_job():
    made = together(8, lambda _: enqueue("tests.add", {"a": 1, "b": 1}, label="Add", unique_key="one").pk)
    assert len(set(made)) == 1
    assert Job.objects.get().events.count() == 1


def test_cancel_and_claim_have_one_winner():
    for _ in range(10):
        job = new_job()

        def act(number, job=job):
            return (
                request_cancel(Job.objects.get(pk=job.pk), by=None)
                if number
                else claim(job.pk, this_process("w"), schema=1)
            )

        claimed, cancelled = together(2, act)
        job.refresh_from_db()
        assert cancelled
        assert job.state == (JobState.RUNNING if claimed else JobState.CANCELLED)
        assert job.is_cancelling == bool(claimed)


def test_cancel_and_completion_end_the_job_once():
    for _ in range(10):
        job = claimed_job()
        acts = [
            lambda job=job: attempts.succeed(job, {}),
            lambda job=job: attempts.cancel(job),
            lambda job=job: request_cancel(Job.objects.get(pk=job.pk), by=None),
        ]
        ends = together(3, lambda number, acts=acts: acts[number]())
        job.refresh_from_db()
        assert job.state in (JobState.SUCCEEDED, JobState.CANCELLED)
        assert job.events.filter(kind__in=["succeeded", "cancelled"]).count() == 1
        assert ends[0] != ends[1]


@pytest.mark.parametrize(
    ("end", "ask", "state"),
    [
        (attempts.release, request_pause, JobState.PAUSED),
        (attempts.release, request_cancel, JobState.CANCELLED),
        (attempts.pause, request_cancel, JobState.CANCELLED),
    ],
    ids=["pause at a release", "cancel at a release", "cancel at a pause"],
)
def test_wish_in_the_middle_of_an_attempts_end_is_not_lost(monkeypatch, end, ask, state):
    job = claimed_job()
    original, asked = attempts._end, []

    def slowly(*rest, **changes):
        asked.append(threading.Thread(target=lambda: together(1, lambda _: ask(Job.objects.get(pk=job.pk), by=None))))
        asked[0].start()
        asked[0].join(0.5)
        return original(*rest, **changes)

    monkeypatch.setattr(attempts, "_end", slowly)
    assert end(job)
    asked[0].join()
    job.refresh_from_db()
    assert job.state == state


@pytest.mark.parametrize(
    ("end", "ask", "after"), [(attempts.pause, request_cancel, 2), (attempts.release, request_pause, 1)]
)
def test_job_that_passes_from_one_state_to_another_meanwhile_is_asked_all_the_same(monkeypatch, end, ask, after):
    """An attempt of the job ends once so many of the request's conditional updates are through."""
    job = claimed_job()
    original, looks, ended = QuerySet.update, [], []

    def update(self, **changes):
        count = original(self, **changes)
        if self.model is Job and threading.current_thread() is threading.main_thread():
            looks.append(count)
        if len(looks) == after and not ended:
            ended.append(threading.Thread(target=lambda: together(1, lambda _: end(job))))
            ended[0].start()
            ended[0].join(0.5)
        return count

    monkeypatch.setattr(QuerySet, "update", update)
    assert ask(Job.objects.get(pk=job.pk), by=None)
    ended[0].join()


def test_reaper_takes_an_expired_lease_once_and_the_old_attempt_is_fenced():
    job = claimed_job()
    context = JobContext(job)
    expire(job)
    assert sum(together(4, lambda _: reap())) == 1
    second = claim(job.pk, this_process("other"), schema=1)
    assert second.attempt == 2
    assert beat(job.pk, job.token) is Pulse.LOST
    with pytest.raises(LeaseLost), context.fenced():
        pytest.fail("The block must not run.")
    with pytest.raises(LeaseLost):
        context.check()
    assert not attempts.succeed(job, {})
    assert not attempts.fail(job, "No.")
    assert not attempts.release(job)
    assert attempts.succeed(second, {"by": 2})
    job.refresh_from_db()
    assert job.result == {"by": 2}


def test_reaper_leaves_an_expired_lease_alone_while_its_fenced_write_runs():
    job = claimed_job()
    expire(job)
    with JobContext(job).fenced():
        assert together(1, lambda _: reap()) == [0]
    assert reap() == 1


def test_reaper_knows_a_dead_process_before_the_lease_ends():
    job = claimed_job()
    assert reap() == 0
    JobAttempt.objects.filter(job=job).update(pid_started=1)
    assert reap() == 1
    job.refresh_from_db()
    assert job.state == JobState.QUEUED


def test_reaper_knows_nothing_of_processes_elsewhere():
    job = claimed_job()
    JobAttempt.objects.filter(job=job).update(pid_started=1, host="another machine")
    assert reap() == 0


def test_lost_attempts_end_at_the_cap_unless_they_get_further():
    job = new_job()
    Job.objects.filter(pk=job.pk).update(max_attempts=3)
    done = [1, 5, 5, 9, 9, 9]
    for furthest in done:
        Job.objects.filter(pk=job.pk).update(run_after=Now())
        held = claim(job.pk, this_process("w"), schema=1)
        Job.objects.filter(pk=job.pk).update(progress_done=furthest, progress_total=10)
        expire(held)
        assert reap() == 1
    job.refresh_from_db()
    assert (job.state, job.attempt) == (JobState.FAILED, 6)
    assert not hasattr(job, "outbox")


def test_lost_attempt_of_a_job_to_be_cancelled_is_its_end():
    job = claimed_job()
    request_cancel(job, by=None)
    expire(job)
    reap()
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED


def sweep_while_another_has_the_lock() -> list[object]:
    inside, leave = threading.Event(), threading.Event()

    def act(number):
        if number == 0:
            from jobs.sweeper import _alone

            with _alone() as is_alone:
                inside.set()
                leave.wait(5)
                return is_alone
        inside.wait(5)
        try:
            return sweep()
        finally:
            leave.set()

    return together(2, act)


def test_two_sweepers_do_not_meet():
    Sweep.objects.create(id=1, swept_at=Now())
    assert sweep_while_another_has_the_lock() == [True, None]
    assert sweep() is not None


def test_sweeper_that_hangs_is_passed_over():
    Sweep.objects.create(id=1, swept_at=Now() - timedelta(minutes=5))
    job = claimed_job()
    expire(job)
    locked, done = sweep_while_another_has_the_lock()
    assert locked is True
    assert done["reaped"] == 1


def test_sweeper_makes_doorbells_that_are_missing():
    job = new_job()
    job.outbox.delete()
    assert heal() == 1
    assert Job.objects.get(pk=job.pk).outbox.published_at is None


def test_sweeper_fails_what_waits_for_a_failed_job():
    blocker, job = new_job(), new_job()
    request_cancel(blocker, by=None)
    job.blockers.add(blocker)
    assert heal() == 1
    job.refresh_from_db()
    assert job.state == JobState.FAILED


def test_blocker_that_fails_while_a_dependent_is_asked_for_is_seen():
    for _ in range(5):
        blocker = claimed_job()

        def act(number, blocker=blocker):
            if number:
                return attempts.fail(blocker, "No.")
            return enqueue("tests.add", {"a": 1, "b": 1}, label="After", after=[blocker]).pk

        key, failed = together(2, act)
        assert failed
        assert Job.objects.get(pk=key).state == JobState.FAILED


def test_fence_holds_against_any_token_but_the_own():
    job = claimed_job()
    job.token = uuid.uuid4()
    with pytest.raises(LeaseLost), JobContext(job).fenced():
        pytest.fail("The block must not run.")


def test_what_a_fenced_block_wrote_is_gone_when_it_fails():
    job = claimed_job()
    context = JobContext(job)
    with pytest.raises(ZeroDivisionError), context.fenced():  # noqa: PT012 - What comes before the error is the point.
        context.event("wrote")
        raise ZeroDivisionError
    assert not job.events.filter(kind="wrote").exists()
    with transaction.atomic():
        context.event("wrote")
    assert job.events.filter(kind="wrote").count() == 1
