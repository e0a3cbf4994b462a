"""Training runs: how one is started, followed by the next of its chain, and ended with a model version."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import connection, transaction

from curation.approvals import not_approved
from curation.models import DatasetEntry, DatasetVersion
from generation.batches import default_scheduler
from generation.models import ModelVersion, Prompt, PromptSet
from jobs import precedence, queue
from jobs.models import Job, JobState
from training.cadence import OF_CADENCE, with_cadence
from training.corpora import folder_of as folder_of_corpus
from training.engine.bands import table_problems
from training.engine.shards import CorpusRefused
from training.models import Corpus, Recipe, RecipeSource, TrainingRun
from training.presets import corpus_problem
from training.recipe_rows import RecipeRefused
from training.recipes import (
    DEFAULT_HYPERPARAMETERS,
    chain_of,
    check_hyperparameters,
    check_kind,
    hyperparameters_of,
    rows_of,
    schedule_of,
    sweep_split,
    warm_up_problem,
)

if TYPE_CHECKING:
    from accounts.models import User

KIND = "training.run"
# Each with several seeds: whether drawings of one prompt still differ says whether the run collapses.
WATCHED_PROMPTS, WATCHED_DRAWINGS, MOST_SEEDS = 4, 8, 4
# What an operator may change for one run and the rest of its chain.
OVERRIDES = ("steps", "batch_size", "learning_rate", "seed", *OF_CADENCE)
RECENT_RUNS = 5
# In the payload of a run's job: who wants it to start over. Gone as soon as that is done, see training.beginnings.
START_OVER = "start_over"


def start_run(
    recipe: Recipe,
    *,
    parent: ModelVersion,
    by: "User",
    name: str = "",
    overrides: Mapping[str, Any] | None = None,
    watch: PromptSet | None = None,
    request_key: str = "",
) -> TrainingRun:
    """Start a run of the recipe on the parent, and queue its job. The recipe's chain follows by itself.

    `overrides` may change steps, batch_size, learning_rate, seed, and how often it writes, validates and draws. `watch` is the prompt set whose prompts are drawn
    as the run goes on; without one the captions of its sources are. The same `request_key` starts one run only.
    Raises RecipeRefused with a sentence, also where somebody has yet to approve what it learns from.
    """
    changed = {key: value for key, value in (overrides or {}).items() if value is not None}
    if unknown := sorted(set(changed) - set(OVERRIDES)):
        raise RecipeRefused(f"A run cannot change {', '.join(unknown)}.", field=unknown[0])
    check_table(recipe, parent, changed)
    check_steps(recipe, changed)
    prompts = watched_prompts(recipe, watch)
    with transaction.atomic():
        check_approved(recipe)
        return _queue_run(
            recipe,
            parent=parent,
            by=by,
            name=name or f"{recipe.name} on v{parent.number}",
            overrides=changed,
            sample_prompts=prompts,
            unique_key=f"{KIND}:{request_key}" if request_key else None,
        )


def versions_to_approve(recipe: Recipe) -> list[DatasetVersion]:
    """What the recipe and those that follow it learn from and nobody has approved."""
    return not_approved(_learned_by(recipe))


def check_approved(recipe: Recipe) -> None:
    """Raises RecipeRefused where the recipe or one that follows it learns from a version that is not approved. Until the
    transaction ends no approval is withdrawn."""
    # Which is said under this lock.
    list(DatasetVersion.objects.select_for_update(no_key=True).filter(pk__in=_learned_by(recipe)).order_by("pk"))
    waiting = [f"“{version}”" for version in versions_to_approve(recipe)]
    if waiting:
        *others, last = waiting
        names = f"{', '.join(others)} and {last} are" if others else f"{last} is"
        raise RecipeRefused(
            f"{names} not approved. A curator or operator approves a dataset version on its page; then the run can start.",
            field="recipe",
        )


def _learned_by(recipe: Recipe) -> set[int]:
    """The ids of the dataset versions that the recipe and those that follow it learn from."""
    chain = [each.pk for each in chain_of(recipe)]
    sources = RecipeSource.objects.filter(recipe__in=chain).exclude(dataset_version=None)
    return set(sources.values_list("dataset_version", flat=True))


def start_sweep(
    recipe: Recipe, t_primes: Sequence[int], *, parent: ModelVersion, by: "User", request_key: str = ""
) -> list[TrainingRun]:
    """Keep the recipe at each T' and start a run of each on the parent, all or none. Raises RecipeRefused.

    The same `request_key` starts one sweep only.
    """
    chosen = sorted(set(t_primes))
    # The same page sent again with other values is another sweep.
    asked = f"{request_key}:{'-'.join(map(str, chosen))}" if request_key else ""
    keys = [f"{asked}:{t_prime}" if asked else "" for t_prime in chosen]
    with transaction.atomic():
        with connection.cursor() as cursor:
            # A second press waits here until the first has started its runs, and finds them.
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"sweep:{asked or recipe.pk}"])
        started = TrainingRun.objects.filter(job__unique_key__in=[f"{KIND}:{key}" for key in keys if key])
        if existing := list(started.order_by("pk")):
            return existing
        made = sweep_split(recipe, t_primes, schedule=schedule_of(parent), by=by)
        return [start_run(each, parent=parent, by=by, request_key=key) for each, key in zip(made, keys, strict=True)]


def start_next(run: TrainingRun, result: ModelVersion) -> TrainingRun | None:
    """Queue the run after this one, on this one's result; None at the end of a chain. In the caller's transaction."""
    recipe = run.recipe.then
    if recipe is None:
        return None
    return _queue_run(
        recipe,
        parent=result,
        by=run.created_by,
        name=f"{run.name}, then {recipe.sources.first().name}"[:120],  # type: ignore[union-attr]
        overrides=run.overrides,
        sample_prompts=run.spec.get("sample_prompts", []),
        unique_key=f"{KIND}:after:{run.pk}",
        previous=run,
    )


def request_cancel(run: TrainingRun, *, by: "User") -> bool:
    """Ask the run to stop; its last checkpoint stays. False where there is nothing left to stop."""
    return queue.request_cancel(run.job, by=by)


def run_first(run: TrainingRun, *, by: "User") -> TrainingRun | None:
    """Put a queued run before all that waits for the same workers. Where these are busy, a run that is under way gives way:
    it saves a checkpoint after its step and goes on behind this one, to the same bits. Returns that one, None where none has to.

    Raises RecipeRefused where the run does not wait."""
    if not precedence.put_first(run.job, by=by):
        raise RecipeRefused(f"The run {run} does not wait for a worker.")
    return TrainingRun.objects.filter(job__yields_to=run.job, job__state=JobState.RUNNING).first()


def request_pause(run: TrainingRun, *, by: "User") -> bool:
    """Ask the run to save a checkpoint after its step and to wait until it is resumed. False where nothing is to be paused."""
    return queue.request_pause(run.job, by=by)


def resume(run: TrainingRun, *, by: "User") -> bool:
    """Queue a failed, cancelled or paused run again; it goes on from its last checkpoint. False where it is not one of these.

    Whoever resumes a run that was stopped before it had started over wants what was kept until then (the handler's `once`);
    one that was only paused still starts over.
    """
    return queue.retry(run.job, by=by)


def start_over(run: TrainingRun, *, by: "User") -> bool:
    """Queue a failed, cancelled or paused run again from step 0, and give up what it saved. False where it is not one of these.

    Rows and files go when the job begins, on the machine that trains.
    """
    with transaction.atomic():
        changed = queue.retry(run.job, by=by)
        if changed:
            _tell_job(run, {**payload_of(run), START_OVER: str(by)})
            queue.add_event(run.job, START_OVER, by=by, saved_step=saved_step(run))
    return changed


def saved_step(run: TrainingRun) -> int | None:
    """The step of the newest checkpoint that the run is known to have saved; None before the first.

    Also of one that was found damaged since: its event stays.
    """
    kept = run.checkpoints.filter(kept=True).values_list("step", flat=True)
    told = run.events.filter(kind="checkpoint").values_list("step", flat=True)
    return max([*kept, *told], default=None)


def payload_of(run: TrainingRun) -> dict[str, Any]:
    """What the run's job is told, but for the wish to start over."""
    return {"run": run.pk}


def _tell_job(run: TrainingRun, payload: dict[str, Any]) -> None:
    Job.objects.filter(pk=run.job.pk).update(payload=payload)
    run.job.payload = payload


def folder_of(run: TrainingRun) -> Path:
    """The run's folder on the machine that trains."""
    return Path(settings.RUNS_DIR) / str(run.pk)


def watched_prompts(recipe: Recipe, watch: PromptSet | None = None) -> list[dict[str, Any]]:
    """Up to four prompts, spread evenly over the prompt set, or over the captions of the sources, each with two seeds, and more
    where there are fewer; where the sources train without captions, the empty prompt."""
    if watch is not None:
        texts = list(Prompt.objects.filter(prompt_set=watch).order_by("position").values_list("text", flat=True))
    else:
        worded = recipe.sources.filter(prompt_free=False)
        versions = worded.exclude(dataset_version=None).values_list("dataset_version", flat=True)
        entries = DatasetEntry.objects.filter(version__in=list(versions)).order_by("version", "position")
        shown = [
            each["caption"]
            for samples in worded.values_list("corpus__samples", flat=True)
            for each in samples or ()
            if each["caption"]
        ]
        texts = list(dict.fromkeys([*entries.values_list("caption", flat=True), *shown])) or [""]
    count = min(WATCHED_PROMPTS, len(texts))
    seeds = min(MOST_SEEDS, WATCHED_DRAWINGS // count)
    return [{"prompt": texts[i // seeds * len(texts) // count], "seed": i} for i in range(count * seeds)]


@dataclass(frozen=True)
class Speed:
    """How fast a run goes: images a second, and the seconds that its remaining steps take."""

    images_per_second: float
    seconds_left: float


def current_speed(run: TrainingRun) -> Speed | None:
    """The speed of a run by its last step; None before the first."""
    last = run.metrics.order_by("-step").first()
    rate = (last.values.get("images_per_second") if last else None) or 0
    if rate <= 0:
        return None
    return Speed(rate, (run.total_steps - run.step) * images_per_step(run.spec) / rate)


def images_per_step(values: Mapping[str, Any]) -> int:
    """Images that one step draws, by a recipe's or a run's values."""
    batch = values.get("batch_size", DEFAULT_HYPERPARAMETERS["batch_size"])
    return int(batch) * int(values.get("gradient_accumulation", 1))


def check_table(recipe: Recipe, parent: ModelVersion, changed: Mapping[str, Any]) -> None:
    """Raise RecipeRefused unless every table of the chain, with what the run changes of its settings, is trainable on the
    parent's schedule, which its results share."""
    schedule = schedule_of(parent)
    following: Recipe | None = recipe
    while following is not None:
        values = {**hyperparameters_of(following), **changed}
        check_kind(values, schedule)
        rows = rows_of(following)
        if problems := table_problems(schedule.sampled(values), rows):
            raise RecipeRefused(f"{following} does not fit {parent}: {problems[0]}", field="parent")
        for corpus in (row.data for row in rows if isinstance(row.data, Corpus)):
            _check_corpus(corpus)
        following = following.then


def check_steps(recipe: Recipe, changed: Mapping[str, Any]) -> None:
    """Raise RecipeRefused where a run's own number of steps leaves none after the warm-up of a recipe of the chain."""
    for each in chain_of(recipe) if "steps" in changed else ():
        if problem := warm_up_problem({**hyperparameters_of(each), **changed}):
            raise RecipeRefused(problem, field="steps")


def _check_corpus(corpus: Corpus) -> None:
    """Raise RecipeRefused for a corpus that cannot be read now, as far as that can be told at once."""
    try:
        folder_of_corpus(corpus)
    except CorpusRefused as refused:
        raise RecipeRefused(f"The corpus {corpus} cannot be read. {refused.sentence}", field="recipe") from None
    if problem := corpus_problem(corpus):
        raise RecipeRefused(problem, field="recipe")


def _queue_run(
    recipe: Recipe,
    *,
    parent: ModelVersion,
    by: "User",
    name: str,
    overrides: Mapping[str, Any],
    sample_prompts: Sequence[Mapping[str, Any]],
    unique_key: str | None,
    previous: TrainingRun | None = None,
) -> TrainingRun:
    chosen = check_hyperparameters(with_cadence({**hyperparameters_of(recipe), **overrides}))
    job = queue.enqueue(
        KIND,
        {},
        label=f"Train {name}"[:200],
        created_by=by,
        unique_key=unique_key,
        # A chain that was put first stays so.
        priority=previous.job.priority if previous else 0,
    )
    existing = TrainingRun.objects.filter(job=job).first()
    if existing is not None:
        return existing
    run = TrainingRun.objects.create(
        name=name[:120],
        recipe=recipe,
        parent=parent,
        job=job,
        previous=previous,
        overrides=dict(overrides),
        # Drawn as a batch is where nobody says, and as the steps in each band are counted.
        spec={
            **chosen,
            "sample_prompts": list(sample_prompts),
            "sample_scheduler": default_scheduler(parent),
        },
        total_steps=chosen["steps"],
        created_by=by,
    )
    Job.objects.filter(pk=job.pk).update(url=run.get_absolute_url(), payload=payload_of(run))
    job.refresh_from_db()
    run.job = job
    return run
