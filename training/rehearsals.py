"""Rehearsals: a run's first two steps in a folder of their own, to know its time and memory before it is started.

Nothing comes of a rehearsal but figures, and a cache of latents and texts that the run itself finds there.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import transaction
from django.urls import reverse

from generation.models import ModelVersion
from jobs import queue
from jobs.children import run_child
from jobs.context import JobContext, JobFailed
from jobs.models import Job, JobState
from training.cadence import keeps, with_cadence
from training.engine.run_files import read_lines
from training.models import Recipe
from training.processes import trainer_command, warm_module
from training.recipes import check_hyperparameters, hyperparameters_of
from training.run_folders import write_folder
from training.run_records import describe_progress
from training.runs import check_steps, check_table, images_per_step

if TYPE_CHECKING:
    from accounts.models import User

KIND = "training.rehearsal"
STEPS = 2
LOG_BYTES = 4000
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rehearsed:
    """What a rehearsal measured. `step_seconds` is that of the last step, since the first warms up; `run_seconds` what all
    steps of the first run take at that pace; `memory_bytes` the most that was held; bytes of checkpoints are for two, and `kept` says how
    many the run keeps."""

    step_seconds: float
    images_per_second: float
    run_seconds: float
    memory_bytes: int
    checkpoint_bytes: int
    free_bytes: int
    kept: int = 2

    @property
    def has_room(self) -> bool:
        """Whether the disk takes the checkpoints twice over, since a new one is written before an old one goes."""
        return self.free_bytes > self.kept * self.checkpoint_bytes


def request_rehearsal(
    recipe: Recipe,
    *,
    parent: ModelVersion,
    by: "User",
    overrides: Mapping[str, Any] | None = None,
    request_key: str = "",
) -> Job:
    """Queue a rehearsal of the recipe's first run on the parent. Raises RecipeRefused with a sentence.

    The same `request_key` with the same settings queues one only.
    """
    changed = {key: value for key, value in (overrides or {}).items() if value is not None}
    check_table(recipe, parent, changed)
    check_steps(recipe, changed)
    spec = check_hyperparameters(with_cadence({**hyperparameters_of(recipe), **changed}))
    payload = {"recipe": recipe.pk, "parent": parent.pk, "spec": spec, "changed": changed}
    asked = hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()[:16]
    with transaction.atomic():
        job = queue.enqueue(
            KIND,
            payload,
            label=f"Rehearse {recipe.name} on v{parent.number}"[:200],
            created_by=by,
            unique_key=f"{KIND}:{request_key}:{asked}" if request_key else None,
        )
        Job.objects.filter(pk=job.pk).update(url=reverse("rehearsal", args=[job.pk]))
    return job


def rehearse(context: JobContext) -> dict[str, Any]:
    """What the job does; its result is a `Rehearsed` as JSON."""
    payload = context.payload
    recipe = Recipe.objects.filter(pk=payload["recipe"]).first()
    parent = ModelVersion.objects.filter(pk=payload["parent"]).first()
    if recipe is None or parent is None:
        raise JobFailed("The recipe or the parent of this rehearsal is gone.", retry=False)
    spec = payload["spec"]
    folder = Path(settings.RUNS_DIR) / f"rehearsal-{context.job.pk}"
    shutil.rmtree(folder, ignore_errors=True)
    shortened = {
        **spec, "steps": STEPS, "warmup_steps": 0, "checkpoint_every": STEPS, "validate_every": 0, "sample_every": 0,
    }  # fmt: skip
    try:
        write_folder(folder, recipe, parent, shortened, context)
        code = run_child(
            context,
            trainer_command(folder, spec),
            warm=warm_module(spec),
            log_path=folder / "trainer.log",
            cwd=settings.BASE_DIR,
            # A run draws most of a large corpus for the first time, which a second rehearsal would find on disk.
            env={"ATELIER_TRACKERS": "off", "ATELIER_DRAWN_CACHE": "off"},
            on_tick=lambda: _tell(folder, context),
            grace_seconds=10.0,
        )
        if code:
            context.check()
            logger.error("A rehearsal failed; the end of its log:\n%s", _log_tail(folder))
            raise JobFailed(_sentence(folder), retry=False)
        return _measured(folder, spec)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rehearsed(job: Job) -> Rehearsed | None:
    """The figures of a finished rehearsal."""
    return Rehearsed(**job.result) if job.state == JobState.SUCCEEDED and job.result else None


def _tell(folder: Path, context: JobContext) -> None:
    try:
        state = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    context.progress(int(state.get("step", 0)), STEPS, describe_progress(state))


def _measured(folder: Path, spec: Mapping[str, Any]) -> dict[str, Any]:
    last = list(read_lines(folder / "metrics.jsonl"))[-1]
    images = images_per_step(spec)
    (checkpoint,) = (folder / "checkpoints").glob("step-*")
    size = sum(each.stat().st_size for each in checkpoint.iterdir())
    return {
        "step_seconds": last["seconds"],
        "images_per_second": images / last["seconds"],
        "run_seconds": last["seconds"] * spec["steps"],
        "memory_bytes": last["memory_bytes"],
        "checkpoint_bytes": 2 * size,
        "free_bytes": shutil.disk_usage(folder).free,
        "kept": keeps(spec),
    }


def _log_tail(folder: Path) -> str:
    try:
        return (folder / "trainer.log").read_bytes()[-LOG_BYTES:].decode("utf-8", errors="replace")
    except OSError:
        return ""


def _sentence(folder: Path) -> str:
    try:
        return str(json.loads((folder / "error.json").read_text(encoding="utf-8"))["sentence"])
    except (OSError, ValueError, KeyError):
        return "The trainer ended unexpectedly; the worker's log says more."
