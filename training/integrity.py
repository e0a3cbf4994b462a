"""What is wrong with the room's rows and files, for `manage.py verify`: each problem one sentence."""

from collections.abc import Iterator

from django.db.models import Count, F, Max, Min, Q

from generation.engine.folders import FolderRefused, hash_folder
from generation.images import Kind, image_matches
from generation.models import ModelOrigin, ModelVersion
from jobs.models import JobState
from training.corpora import folder_of, index_here
from training.engine.corpus_index import check_index, check_shards
from training.engine.shards import CorpusRefused
from training.models import Corpus, Evaluation, Recipe, RunSample, TrainingRun


def problems() -> Iterator[str]:
    """Every difference between what the rows say and what must hold."""
    yield from _result_problems()
    yield from _metric_problems()
    yield from _lineage_problems()
    yield from _sample_problems()
    yield from _evaluation_problems()
    yield from _corpus_problems()


def _result_problems() -> Iterator[str]:
    """A run that succeeded has one result, whose files are whole; one that did not has none."""
    checked: set[int] = set()
    for run in TrainingRun.objects.select_related("job", "result", "parent").order_by("pk"):
        if run.job.state == JobState.SUCCEEDED and run.result is None:
            yield f"Run {run.pk} “{run}” succeeded without a result."
        if run.result is None:
            continue
        if run.step != run.total_steps:
            yield f"Run {run.pk} “{run}” has a result after {run.step} of {run.total_steps} steps."
        if run.result_id not in checked:
            checked.add(run.result.pk)
            yield from _folder_problems(run, run.result)


def _folder_problems(run: TrainingRun, version: ModelVersion) -> Iterator[str]:
    try:
        found, _ = hash_folder(version.folder)
    except (FolderRefused, OSError):
        yield f"The result of run {run.pk}, {version}, cannot be read: {version.folder}."
        return
    if found != version.content_hash:
        yield f"The files of {version}, the result of run {run.pk}, are not those that it made."


def _metric_problems() -> Iterator[str]:
    """A finished run has the figures of every step, from 1 to the last, each once."""
    finished = TrainingRun.objects.filter(result__isnull=False).annotate(
        count=Count("metrics"), first=Min("metrics__step"), last=Max("metrics__step")
    )
    for run in finished.exclude(count=F("total_steps"), first=1, last=F("total_steps")):
        yield f"Run {run.pk} “{run}” has figures of {run.count} steps, not of each from 1 to {run.total_steps}."


def _lineage_problems() -> Iterator[str]:
    """From each trained version back to its run, recipe and data; from each run on to the next of its chain."""
    orphans = ModelVersion.objects.filter(origin=ModelOrigin.TRAINED, made_by=None)
    for version in orphans:
        # Between the registration and the run's link a worker may be at work; afterwards never.
        if not TrainingRun.objects.filter(job__state__in=[JobState.QUEUED, JobState.RUNNING, JobState.PAUSED]).exists():
            yield f"{version} was trained, but no run made it."
    for run in TrainingRun.objects.filter(result__isnull=False).select_related("result"):
        if run.result is not None and run.result.parent_id is None and run.result.origin == ModelOrigin.TRAINED:
            yield f"The result of run {run.pk} has no parent."
    for recipe in Recipe.objects.annotate(rows=Count("sources")).filter(rows=0):
        yield f"The recipe “{recipe}” has no source."
    broken = TrainingRun.objects.filter(previous__isnull=False).exclude(parent=F("previous__result"))
    for run in broken:
        yield f"Run {run.pk} “{run}” does not start from the result of the run before it."
    stopped = TrainingRun.objects.filter(
        result__isnull=False, recipe__then__isnull=False, next=None, job__state=JobState.SUCCEEDED
    )
    for run in stopped:
        yield f"Run {run.pk} “{run}” ended, but the next run of its recipe was never started."


def _sample_problems() -> Iterator[str]:
    kinds: tuple[Kind, ...] = ("image", "thumbnail")
    for kind in kinds:
        for sha256 in RunSample.objects.order_by(kind).values_list(kind, flat=True).distinct().iterator():
            try:
                if not image_matches(sha256, kind):
                    yield f"The {kind} {sha256}, drawn in a run, has changed since."
            except FileNotFoundError:
                yield f"The {kind} {sha256}, drawn in a run, is missing."
            except (OSError, ValueError):
                yield f"The {kind} {sha256}, drawn in a run, cannot be read."


def _evaluation_problems() -> Iterator[str]:
    done = Evaluation.objects.filter(job__state=JobState.SUCCEEDED).filter(Q(campaign=None) | Q(metrics={}))
    for evaluation in done:
        yield f"Evaluation {evaluation.pk} “{evaluation}” is done without a comparison or without its figures."
    for evaluation in Evaluation.objects.select_related("baseline_batch", "candidate_batch"):
        first, second = evaluation.baseline_batch, evaluation.candidate_batch
        fields = ("prompt_set_id", "images_per_prompt", "seed", "steps", "guidance", "scheduler", "width", "height")
        if any(getattr(first, name) != getattr(second, name) for name in fields):
            yield f"The two batches of evaluation {evaluation.pk} “{evaluation}” were not drawn alike."
        if (first.model_version_id, second.model_version_id) != (evaluation.baseline_id, evaluation.candidate_id):
            yield f"The batches of evaluation {evaluation.pk} “{evaluation}” are not of its versions."


def _corpus_problems() -> Iterator[str]:
    """An index is what was written, its shards are where they were, and the shown images are whole. Shards of the same
    size and time are not read: that takes as long as a corpus is large, and is what “Verify again” on its page does."""
    for corpus in Corpus.objects.exclude(content_hash="").order_by("pk"):
        try:
            check_index(index_here(corpus), corpus.content_hash)
            check_shards(index_here(corpus), folder_of(corpus))
        except CorpusRefused as refused:
            yield f"The corpus “{corpus}”: {refused.sentence}"
        for sample in corpus.samples:
            try:
                if not image_matches(sample["thumbnail"], "thumbnail"):
                    yield f"The thumbnail {sample['thumbnail']} of the corpus “{corpus}” has changed since."
            except (OSError, ValueError):
                yield f"The thumbnail {sample['thumbnail']} of the corpus “{corpus}” cannot be read."
