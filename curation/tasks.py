"""The room's jobs, and its periodic work."""

from typing import Any

from celery import shared_task

from curation import exclusions, order, recounts, tallies
from jobs.context import JobContext
from jobs.handlers import handler
from jobs.models import Queue


@handler(recounts.RECOUNT_KIND, queue=Queue.CPU, max_attempts=5)
def recount_verdicts(context: JobContext) -> dict[str, Any]:
    """Count all verdicts of a campaign anew."""
    return recounts.recount_by_job(context)


@handler(exclusions.EXCLUSION_KIND, queue=Queue.CPU, max_attempts=5)
def exclude_rater(context: JobContext) -> dict[str, Any]:
    """Let what a rater said not count, or count again, item by item."""
    return exclusions.exclude_by_job(context)


@handler(order.ORDER_KIND, queue=Queue.CPU, max_attempts=5)
def put_in_order(context: JobContext) -> dict[str, Any]:
    """Give the items of a campaign their ranks in the order that was chosen."""
    return order.order_by_job(context)


@shared_task(name="curation.fold_tallies", ignore_result=True)  # type: ignore[untyped-decorator]
def fold_tallies(**_: Any) -> None:
    """Adds up the counts that judgments have changed, so that pages stay quick to read."""
    tallies.fold()


@shared_task(name="curation.estimate_due", ignore_result=True)  # type: ignore[untyped-decorator]
def estimate_due(**_: Any) -> None:
    """Looks anew at the raters of campaigns whose rule is an estimated one, once enough judgments have come."""
    recounts.estimate_due()
