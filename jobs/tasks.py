"""The two Celery tasks. A message carries a job's id; everything else is in the row."""

from typing import Any
from uuid import UUID

from celery import shared_task

from jobs.execution import execute
from jobs.sweeper import sweep
from jobs.workers import holder_of_this_process


@shared_task(name="jobs.run", ignore_result=True)  # type: ignore[untyped-decorator]
def run_job(job_id: str, **_: Any) -> None:
    """Runs the job if it is due and nobody else has it; a duplicate message finds nothing to claim."""
    execute(UUID(job_id), holder_of_this_process(), may_kill=True)


@shared_task(name="jobs.sweep", ignore_result=True)  # type: ignore[untyped-decorator]
def run_sweep(**_: Any) -> None:
    """Rings again, reaps, tidies up."""
    sweep()
