"""For tests: run what is due in this process, through the real claim and the real end."""

from collections.abc import Collection

from django.db.models.functions import Now

from jobs.execution import execute
from jobs.models import Job, JobState
from jobs.processes import this_process


def run_due_jobs(*, kinds: Collection[str] = (), limit: int = 100, skip_waits: bool = False) -> list[Job]:
    """Runs due jobs, oldest first, until none is due; returns them as they are afterwards, in the order of their runs.

    Jobs that become due meanwhile run too. `skip_waits` makes pauses before another attempt pass at once. There is no
    heartbeat thread, since it could not see the test's own transaction: a wish to cancel is seen at `progress()`.
    """
    ran: list[Job] = []
    while len(ran) < limit:
        if skip_waits:
            Job.objects.filter(state=JobState.QUEUED).update(run_after=Now())
        due = Job.objects.due().order_by("-priority", "created_at", "id")
        job = (due.filter(kind__in=kinds) if kinds else due).first()
        if job is None or not execute(job.pk, this_process("test"), heartbeat=False, in_turn=False):
            break
        job.refresh_from_db()
        ran.append(job)
    return ran
