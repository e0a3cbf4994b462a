"""The room's jobs, which workers run on the queue of the machine that draws."""

from typing import Any

from generation import batches, combinations, model_versions
from jobs.context import JobContext
from jobs.handlers import handler
from jobs.models import Queue


@handler(batches.DRAW_KIND, queue=Queue.GENERATE, max_attempts=5)
def draw_batch(context: JobContext) -> dict[str, Any]:
    """Draw what is missing of a batch."""
    return batches.draw_batch(context)


@handler(model_versions.IMPORT_KIND, queue=Queue.GENERATE, max_attempts=3)
def import_model(context: JobContext) -> dict[str, Any]:
    """Make a model version of a folder on the server."""
    return model_versions.import_folder(context)


@handler(combinations.KIND, queue=Queue.GENERATE, max_attempts=3)
def combine_models(context: JobContext) -> dict[str, Any]:
    """Make a version of one version with another's decoder."""
    return combinations.combine(context)
