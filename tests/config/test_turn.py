"""How a simulated turn of the loop waits for its jobs."""

import pytest

from config.loop import turn
from config.loop.turn import StepFailed, Turn
from jobs.queue import enqueue, request_cancel, request_pause, retry
from jobs.testing import run_due_jobs
from tests.jobs import work  # noqa: F401 - Registers the kinds.


@pytest.mark.django_db
def test_a_turn_waits_for_what_somebody_paused_and_not_for_what_was_cancelled(monkeypatch):
    job = enqueue("tests.add", {"a": 2, "b": 3}, label="Add")
    assert request_pause(job, by=None)

    def resume(seconds: float) -> None:
        assert retry(job, by=None)
        run_due_jobs()

    monkeypatch.setattr(turn.time, "sleep", resume)
    waiting = Turn("a turn", "", lambda text: None)
    waiting._wait(job)
    other = enqueue("tests.add", {"a": 2, "b": 3}, label="Add")
    assert request_cancel(other, by=None)
    with pytest.raises(StepFailed, match="ended as cancelled"):
        waiting._wait(other)
