"""Any order of what can happen to a job leaves it consistent, and its results written by one attempt."""

import pytest
from django.db.models.functions import Now
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import attempts
from jobs.context import JobContext, LeaseLost
from jobs.integrity import problems
from jobs.models import FINAL_STATES, Job, JobState
from jobs.processes import this_process
from jobs.queue import add_event, enqueue, request_cancel, request_pause, retry
from jobs.sweeper import heal, reap
from tests.jobs import work  # noqa: F401 - Registers the kinds.

pytestmark = pytest.mark.django_db

ACTIONS = [
    "claim",
    "write",
    "beat",
    "succeed",
    "fail",
    "fail_for_good",
    "release",
    "cancel",
    "stop",
    "pause",
    "ask_to_pause",
    "ask_to_give_way",
    "expire",
    "reap",
    "retry",
    "heal",
]


class World:
    """One job, and every attempt that was ever claimed, dead or alive: each may still try to write."""

    def __init__(self) -> None:
        self.job = enqueue("tests.add", {"a": 1, "b": 1}, label="Add")
        self.urgent = enqueue("tests.generate", {}, label="Urgent")
        self.held: list[Job] = []

    def act(self, action: str, which: int) -> None:
        held = self.held[which % len(self.held)] if self.held else None
        if action == "claim":
            Job.objects.filter(pk=self.job.pk, state=JobState.QUEUED).update(run_after=Now())
            if claimed := attempts.claim(self.job.pk, this_process("w"), schema=1):
                self.held.append(claimed)
        elif action in ("reap", "heal"):
            (reap if action == "reap" else heal)()
        elif action == "expire":
            Job.objects.filter(pk=self.job.pk, state=JobState.RUNNING).update(lease_until=Now())
        elif action == "stop":
            request_cancel(Job.objects.get(pk=self.job.pk), by=None)
        elif action == "ask_to_pause":
            request_pause(Job.objects.get(pk=self.job.pk), by=None)
        elif action == "ask_to_give_way":
            Job.objects.filter(pk=self.job.pk, state=JobState.RUNNING).update(yields_to=self.urgent)
        elif action == "retry":
            retry(Job.objects.get(pk=self.job.pk), by=None)
        elif held is not None:
            self.act_as(held, action)

    def act_as(self, held: Job, action: str) -> None:
        before = Job.objects.get(pk=self.job.pk)
        is_mine = before.token == held.token
        if action == "write":
            try:
                with JobContext(held).fenced() as job:
                    add_event(job, "wrote", attempt=held.attempt)
                changed = True
            except LeaseLost:
                changed = False
        elif action == "beat":
            changed = attempts.beat(held.pk, held.token) is not attempts.Pulse.LOST
        elif action == "fail":
            changed = attempts.fail(held, "No.", retry=True)
        elif action == "fail_for_good":
            changed = attempts.fail(held, "No.")
        elif action == "succeed":
            changed = attempts.succeed(held, {})
        else:
            changed = {"release": attempts.release, "cancel": attempts.cancel, "pause": attempts.pause}[action](held)
        assert changed == is_mine

    def check(self) -> None:
        job = Job.objects.get(pk=self.job.pk)
        assert list(problems()) == []
        assert (job.state == JobState.QUEUED) == hasattr(job, "outbox")
        assert job.attempts.filter(outcome="").count() == (job.state == JobState.RUNNING)
        assert job.attempts.filter(outcome="succeeded").count() == (job.state == JobState.SUCCEEDED)
        assert (job.state in FINAL_STATES) == (job.finished_at is not None)
        assert job.yields_to is None or job.state == JobState.RUNNING


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 3)), max_size=25))
def test_any_order_of_events_leaves_a_job_consistent(steps):
    world = World()
    for action, which in steps:
        world.act(action, which)
        world.check()
    Job.objects.all().delete()
