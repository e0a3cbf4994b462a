"""Where a run begins: at a checkpoint in its folder, or at step 0 where none was ever saved or somebody says so.

The trainer sees the run's folder alone. Where that is gone, or the job has come to another machine, only the rows know
that there was something to go on from.
"""

import platform
import shutil
from pathlib import Path

from django.utils import timezone

from jobs.context import JobContext, JobFailed
from training.engine.lifeline import hold_folder
from training.engine.recipe import RunRefused
from training.engine.run_files import RunFiles
from training.models import RunEvent, TrainingRun
from training.runs import START_OVER, folder_of, payload_of, saved_step


def find_beginning(run: TrainingRun, context: JobContext) -> None:
    """Before anything is written: clear the folder of a run that starts over, and see that no other begins anew unasked.

    Raises JobFailed with a sentence where a checkpoint was saved and the folder knows of none.
    """
    folder = folder_of(run)
    if START_OVER in context.payload:
        _start_over(run, folder, context)
        return
    step = saved_step(run)
    if step is not None and not _has_begun(folder):
        raise JobFailed(
            f"A checkpoint was saved at step {step}, but {folder} on {platform.node()} holds none. The folder was deleted, "
            "or lies on another machine: bring it back and resume the run, or start it over from the beginning on its page.",
            retry=False,
        )


def _has_begun(folder: Path) -> bool:
    """Whether the trainer will find something to go on from, or say itself what is wrong with it."""
    return (folder / "result.json").is_file() or any(
        found for pattern in ("checkpoints/step-*", "quarantine/*") for found in folder.glob(pattern)
    )


def _start_over(run: TrainingRun, folder: Path, context: JobContext) -> None:
    """Doing it again, after a crash in its middle, comes to the same: the wish is taken back with the rows, at the end."""
    context.check()
    folder.mkdir(parents=True, exist_ok=True)
    told = {"by": str(context.payload[START_OVER]), "saved": saved_step(run)}
    try:
        with hold_folder(folder):
            _clear(folder)
            RunFiles(folder, run.total_steps).event("started_over", 0, **told)
    except RunRefused as refused:
        raise JobFailed(refused.sentence, retry=refused.retry) from None
    with context.fenced() as job:
        run.checkpoints.filter(kept=True).update(kept=False)
        run.metrics.all().delete()
        run.samples.all().delete()
        run.events.all().delete()
        RunEvent.objects.create(run=run, position=0, kind="started_over", detail=told, at=timezone.now())
        TrainingRun.objects.filter(pk=run.pk).update(step=0)
        job.payload = payload_of(run)
        job.save(update_fields=["payload"])
    run.step = 0


def _clear(folder: Path) -> None:
    """Delete all but the lock, which is held: whoever waits for it must find it, and not another file of its name.

    First, each at once, what a run would go on from: a process that dies in the middle leaves no half of it.
    """
    (folder / "result.json").unlink(missing_ok=True)
    for name in ("checkpoints", "quarantine"):
        given_up = folder / f".{name}.given-up"
        shutil.rmtree(given_up, ignore_errors=True)
        if (folder / name).exists():
            (folder / name).rename(given_up)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()
