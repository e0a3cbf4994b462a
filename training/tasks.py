"""Jobs of this room: a training run as a child process, and an evaluation's measurements."""

import json
import logging
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from generation import model_versions
from generation.models import ModelOrigin, ModelVersion
from jobs.children import run_child
from jobs.context import Cancelled, JobContext, JobFailed, Paused, Released
from jobs.handlers import handler
from jobs.models import Queue
from training import corpora, evaluations, rehearsals, runs
from training.beginnings import find_beginning
from training.caches import trim_quietly
from training.models import Evaluation, TrainingRun
from training.processes import WARM_MODULE, trainer_command
from training.recipe_rows import RecipeRefused
from training.run_folders import prepare_folder
from training.run_records import RunRecorder

# Exit codes of `python -m training.engine`, see its docstring.
DONE, RESUMABLE, CANCELLED, BAD_DATA, DIVERGED = 0, 75, 76, 77, 78
CANCEL_FILE = "cancel"
TRAINER_LOG = "trainer.log"
GRACE_SECONDS = 30.0
logger = logging.getLogger(__name__)


@handler(runs.KIND, queue=Queue.TRAIN, max_attempts=8, once=[runs.START_OVER], gives_way=True)
def train(context: JobContext) -> dict[str, Any]:
    """Train one run in a child process, keep its rows in step, and make its result a model version once."""
    run = _run_of(context)
    if run.result_id is None:
        find_beginning(run, context)
        folder = prepare_folder(run, context)
        try:
            _train_to_the_end(run, folder, context)
        finally:
            trim_quietly()
        _publish_result(run, folder, context)
    run.refresh_from_db()
    return {"model_version": run.result.number} if run.result else {}


@handler(evaluations.KIND, queue=Queue.GENERATE, max_attempts=5)
def evaluate(context: JobContext) -> dict[str, Any]:
    """Measure the images of both versions, then open the blind comparison, once."""
    evaluation = (
        Evaluation.objects.select_related("baseline", "candidate", "prompt_set").filter(job=context.job).first()
    )
    if evaluation is None:
        raise JobFailed("The evaluation of this job is gone.", retry=False)
    return evaluations.carry_out(evaluation, context)


@handler(rehearsals.KIND, queue=Queue.TRAIN, max_attempts=2)
def rehearse(context: JobContext) -> dict[str, Any]:
    """Train two steps of what a run would be, and say what they took."""
    try:
        return rehearsals.rehearse(context)
    finally:
        trim_quietly()


@handler(corpora.INDEX_KIND, queue=Queue.CPU, max_attempts=8)
def index_corpus(context: JobContext) -> dict[str, Any]:
    """Read the shards of a new corpus and write its index."""
    return corpora.index_corpus(context)


@handler(corpora.CHECK_KIND, queue=Queue.CPU, max_attempts=5)
def check_corpus(context: JobContext) -> dict[str, Any]:
    """Compare every byte of a corpus with what was indexed."""
    return corpora.check_corpus(context)


def _run_of(context: JobContext) -> TrainingRun:
    run = TrainingRun.objects.select_related("recipe__then", "parent", "result").filter(job=context.job).first()
    if run is None:
        raise JobFailed("The run of this job is gone.", retry=False)
    return run


def _train_to_the_end(run: TrainingRun, folder: Path, context: JobContext) -> None:
    recorder = RunRecorder(run, folder, context)
    try:
        code = run_child(
            context,
            trainer_command(folder, run.spec),
            warm=WARM_MODULE,
            log_path=folder / TRAINER_LOG,
            cwd=settings.BASE_DIR,
            env={"ATELIER_RUN_NAME": f"{run.name} (run {run.pk})"},
            on_tick=recorder.tick,
            # Whoever gives a checkpoint more time has large ones.
            grace_seconds=max(GRACE_SECONDS, settings.JOB_STOP_SECONDS),
        )
    except (Cancelled, Paused, Released):
        recorder.finish()  # The checkpoint that the trainer saved on its way out is what a resumption goes on from.
        raise
    recorder.finish()
    if code != DONE:
        _explain(code, folder, context)


def _explain(code: int, folder: Path, context: JobContext) -> None:
    """Raise what an exit status other than 0 means."""
    context.check()  # Where a cancel or a pause was asked for, that is what happened, whatever the trainer said last.
    said = _read_json(folder / "error.json")
    sentence = str(said.get("sentence", ""))
    if code == CANCELLED and (folder / CANCEL_FILE).exists():
        (folder / CANCEL_FILE).unlink()
        raise Cancelled("Somebody put the file cancel into the run's folder.")
    if code == CANCELLED:
        # A signal from outside, and nobody's wish: the machine may be going down.
        raise JobFailed("The trainer was told to stop; it goes on from its last checkpoint.", retry=True)
    if code == BAD_DATA:
        raise JobFailed(sentence or "The run's settings or data cannot be trained.", retry=False)
    if code == DIVERGED:
        raise JobFailed(sentence or "The training diverged: its loss is no longer a number.", retry=False)
    if code == RESUMABLE:
        raise JobFailed(sentence or "The trainer was stopped; it goes on from its last checkpoint.", retry=True)
    raise JobFailed(f"The trainer ended unexpectedly ({_exit_in_words(code)}); its log says more.", retry=True)


def _exit_in_words(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def _publish_result(run: TrainingRun, folder: Path, context: JobContext) -> None:
    """Make result/ a model version, link it to the run and start the next run of the chain, all in one transaction."""
    result = folder / "result"
    if not (folder / "result.json").is_file() or not result.is_dir():
        raise JobFailed("The trainer ended without a result.", retry=True)

    def link(version: ModelVersion) -> None:
        TrainingRun.objects.filter(pk=run.pk, result=None).update(result=version, step=run.total_steps)
        try:
            with transaction.atomic():
                runs.start_next(run, version)
        except RecipeRefused as refused:
            # What was trained stays, whatever became of the recipe after it meanwhile.
            logger.warning("run %s is followed by no other: %s", run.pk, refused.sentence)

    model_versions.register_folder(
        context,
        result,
        name=run.name,
        origin=ModelOrigin.TRAINED,
        parent=run.parent,
        created_by=run.created_by,
        note=f"Run {run.pk} of the recipe {run.recipe}"[:300],
        link=link,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
