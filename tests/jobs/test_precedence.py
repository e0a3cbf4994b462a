"""A job that is put first goes before the others of its queue, and takes the place of one that can wait."""

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import User
from jobs import attempts
from jobs.execution import execute
from jobs.history import describe_history
from jobs.models import Job, JobState, Queue, Worker
from jobs.precedence import keep_asking, put_first
from jobs.processes import this_process
from jobs.queue import enqueue, request_cancel, request_pause, retry
from tests.jobs import work  # noqa: F401 - Registers the kinds.

pytestmark = pytest.mark.django_db


def steps(**more) -> Job:
    return enqueue("tests.steps", {"steps": 1}, label=f"Steps {Job.objects.count()}", **more)


def running(kind: str = "tests.steps") -> Job:
    job = enqueue(kind, {"steps": 1, "a": 1, "b": 1}, label=f"Running {kind}")
    held = attempts.claim(job.pk, this_process("w"), schema=1)
    assert held is not None
    return held


def make_worker(name: str, queues: str = "cpu") -> None:
    Worker.objects.create(name=name, queues=queues, host="h", pid=1, seen_at=timezone.now())


def events(job: Job) -> list[str]:
    return list(job.events.values_list("kind", flat=True))


def test_whoever_takes_a_message_takes_the_job_that_goes_first():
    early, late, other = steps(), steps(), enqueue("tests.generate", {}, label="Other queue", priority=9)
    assert put_first(late, by=User.objects.create_user(email="o@example.org", name="Olga"))
    assert execute(early.pk, this_process("w"), heartbeat=False)
    assert [Job.objects.get(pk=job.pk).state for job in (early, late, other)] == ["queued", "succeeded", "queued"]
    # The message of the other still brings it.
    assert execute(early.pk, this_process("w"), heartbeat=False)
    assert not execute(late.pk, this_process("w"), heartbeat=False)
    assert describe_history(late)[-2].text == "Put before all others that wait by Olga."


def test_who_was_put_first_last_goes_first():
    first, second, third = steps(), steps(), steps()
    put_first(second, by=None)
    put_first(third, by=None)
    ran = []
    for _ in range(3):
        execute(first.pk, this_process("w"), heartbeat=False)
        ran.append(Job.objects.filter(state="succeeded").order_by("-finished_at").first())
    assert ran == [third, second, first]


def test_a_job_that_is_not_due_holds_nobody_up():
    urgent, job = steps(run_after=timezone.now() + timedelta(hours=1), priority=5), steps()
    assert execute(job.pk, this_process("w"), heartbeat=False)
    assert [Job.objects.get(pk=each.pk).state for each in (urgent, job)] == ["queued", "succeeded"]


def test_a_job_that_gave_way_goes_on_before_those_that_waited_for_less_long():
    held, first, second = running(), steps(), steps()
    urgent = steps()
    put_first(urgent, by=None)
    assert attempts.pause(held)
    ran = []
    # The messages as they were sent; whose turn has not come is rung for again.
    for message in (first, second, urgent, held, first, second):
        if execute(message.pk, this_process("w"), heartbeat=False):
            ran.append(Job.objects.filter(state="succeeded").order_by("-finished_at").first())
    assert ran == [urgent, held, first, second]


def test_a_job_that_waits_for_another_attempt_is_due_once_it_is_put_first():
    held, urgent = running(), steps(run_after=timezone.now() + timedelta(minutes=10))
    assert put_first(urgent, by=None)
    assert Job.objects.due().filter(pk=urgent.pk).exists()
    assert Job.objects.get(pk=held.pk).yields_to == urgent


def test_an_urgent_job_is_not_forgotten_where_an_idle_worker_was_none():
    held, urgent = running(), steps()
    for name in ("one", "dead"):
        make_worker(name)
    put_first(urgent, by=None)
    keep_asking()
    assert Job.objects.get(pk=held.pk).yields_to is None
    Worker.objects.filter(name="dead").update(seen_at=timezone.now() - timedelta(minutes=1))
    keep_asking()
    keep_asking()
    assert Job.objects.get(pk=held.pk).yields_to == urgent
    assert events(held).count("asked_to_give_way") == 1


def test_nothing_gives_way_to_a_job_that_waits_for_another():
    held = running()
    blocked = enqueue("tests.steps", {"steps": 1}, label="Blocked", after=[held])
    assert put_first(blocked, by=None)
    assert Job.objects.get(pk=held.pk).yields_to is None


def test_a_wish_is_over_once_the_urgent_job_waits_no_more():
    held, urgent = running(), steps()
    put_first(urgent, by=None)
    assert attempts.beat(held.pk, held.token) is attempts.Pulse.PAUSE
    request_cancel(urgent, by=None)
    assert attempts.beat(held.pk, held.token) is attempts.Pulse.FINE
    assert not Job.objects.get(pk=held.pk).is_yielding
    # Where it was seen before, it is queued again, and paused by nobody.
    assert attempts.pause(held)
    assert Job.objects.get(pk=held.pk).state == JobState.QUEUED


def test_a_retried_job_is_urgent_no_more():
    job = steps()
    put_first(job, by=None)
    request_pause(job, by=None)
    retry(job, by=None)
    assert job.priority > 0
    request_cancel(job, by=None)
    retry(job, by=None)
    assert job.priority == 0


def test_a_job_that_this_worker_cannot_claim_holds_nobody_up():
    urgent, job = steps(), steps()
    put_first(urgent, by=None)
    Job.objects.filter(pk=urgent.pk).update(schema=9)
    assert execute(job.pk, this_process("w"), heartbeat=False)
    assert [Job.objects.get(pk=each.pk).state for each in (urgent, job)] == ["queued", "succeeded"]


def test_the_youngest_job_that_can_wait_gives_way():
    stubborn, older, younger = running("tests.add"), running(), running()
    for name in ("one", "two", "three"):
        make_worker(name)
    urgent = steps()
    assert put_first(urgent, by=None)
    younger.refresh_from_db()
    assert (younger.yields_to, younger.is_yielding) == (urgent, True)
    assert [Job.objects.get(pk=job.pk).yields_to for job in (stubborn, older)] == [None, None]
    assert attempts.beat(younger.pk, younger.token) is attempts.Pulse.PAUSE

    # Asked again, it is still the one.
    put_first(urgent, by=None)
    assert Job.objects.exclude(yields_to=None).count() == 1
    assert attempts.pause(younger)
    younger.refresh_from_db()
    assert (younger.state, younger.yields_to, younger.max_attempts) == (JobState.QUEUED, None, 4)
    assert events(younger)[-2:] == ["asked_to_give_way", "gave_way"]
    assert list(younger.attempts.values_list("outcome", flat=True)) == ["released"]
    assert Job.objects.first_in_line(younger.pk) == urgent.pk


def test_nothing_gives_way_where_a_worker_is_idle():
    busy = running()
    make_worker("one")
    make_worker("two")
    make_worker("elsewhere", queues="generate")
    put_first(steps(), by=None)
    assert Job.objects.get(pk=busy.pk).yields_to is None


@pytest.mark.parametrize(("ask", "state"), [(request_cancel, "cancelled"), (request_pause, "paused")])
def test_other_wishes_go_before_giving_way(ask, state):
    held = running()
    put_first(steps(), by=None)
    assert ask(Job.objects.get(pk=held.pk), by=None)
    assert attempts.pause(held)
    assert Job.objects.get(pk=held.pk).state == state


def test_what_runs_or_is_over_is_not_put_first():
    held = running()
    assert not put_first(held, by=None)
    attempts.succeed(held, {})
    assert not put_first(held, by=None)


def test_only_jobs_of_the_same_queue_give_way():
    held = running()
    put_first(enqueue("tests.generate", {}, label="Other"), by=None)
    assert held.queue == Queue.CPU
    assert Job.objects.get(pk=held.pk).yields_to is None
