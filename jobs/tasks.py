"""The two Celery tasks. A message carries a job's id; everything else is in the row."""

from typing import Any
from uuid import UUID

from celery import shared_task

from jobs.execution import execute
from jobs.precedence import keep_asking
from jobs.sweeper import reap_if_dead, sweep
from jobs.workers import holder_of_this_process


@shared_task(name="jobs.run", ignore_result=True)  # type: ignore[untyped-decorator]
def run_job(job_id: str, **_: Any) -> None:
    """Runs the job if it is due and nobody else has it; a duplicate message finds nothing to claim."""
    holder, key = holder_of_this_process(), UUID(job_id)
    # A broker redelivers within a second of a pool process's death: no need to wait for the dead attempt's lease then.
    if not execute(key, holder, may_kill=True) and reap_if_dead(key):
        execute(key, holder, may_kill=True)


@shared_task(name="jobs.sweep", ignore_result=True)  # type: ignore[untyped-decorator]
def run_sweep(**_: Any) -> None:
    """Rings again, reaps, tidies up, and asks what can wait to make room for what cannot."""
    sweep()
    keep_asking()
