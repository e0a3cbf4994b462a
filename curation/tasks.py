"""The room's periodic work."""

from typing import Any

from celery import shared_task

from curation import tallies


@shared_task(name="curation.fold_tallies", ignore_result=True)  # type: ignore[untyped-decorator]
def fold_tallies(**_: Any) -> None:
    """Adds up the counts that judgments have changed, so that pages stay quick to read."""
    tallies.fold()
