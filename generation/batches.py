"""Generation batches: asked for by a person or an evaluation, drawn in canonical groups by a worker, each sample once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Case, Count, Exists, F, Max, Min, OuterRef, Q, Subquery, Sum, When
from django.db.models.functions import Coalesce, Now

from accounts.models import User
from generation.drawing import draw_images, sample_seed
from generation.engine.requests import CHUNK_SIZE, FLOW_SCHEDULERS, MAX_SEED, SCHEDULERS, DrawRequest
from generation.models import GenerationBatch, ModelVersion, Prompt, PromptSet, Sample
from jobs.context import JobContext
from jobs.models import Job, JobState
from jobs.queue import enqueue

DRAW_KIND = "generation.draw_batch"
MAX_SAMPLES = 5000
MAX_STEPS = 200
MAX_GUIDANCE = 30.0
SCHEDULER_LABELS = {
    "ddim": "DDIM",
    "dpm++": "DPM-Solver++",
    "euler": "Euler",
    "default": "The model's own",
}
# The pace is that of the last minute: what happened before a retry or a warm-up says nothing of the time left.
PACE_WINDOW = timedelta(seconds=60)


class BatchRefused(ValueError):
    """A request that cannot be drawn; `problems` is {field of the form: sentence}."""

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__(next(iter(problems.values())))
        self.problems = problems

    @property
    def sentence(self) -> str:
        return " ".join(self.problems.values())


@dataclass(frozen=True)
class Pace:
    """How a batch gets on: images a second, and seconds left at that rate; None where too little is drawn to tell."""

    rate: float | None
    seconds_left: float | None


def find_problems(
    *,
    model_version: ModelVersion,
    prompt_count: int,
    images_per_prompt: int,
    seed: int,
    steps: int,
    guidance: float,
    scheduler: str,
    width: int,
    height: int,
) -> dict[str, str]:
    """{field: sentence} of everything that keeps a request from being drawn; empty if it can be."""
    problems = {}
    if images_per_prompt < 1:
        problems["images_per_prompt"] = "Draw at least one image for each prompt."
    elif (total := prompt_count * images_per_prompt) > MAX_SAMPLES:
        problems["images_per_prompt"] = (
            f"{prompt_count:,} prompts with {images_per_prompt} images each are {total:,} images; "
            f"a batch has at most {MAX_SAMPLES:,}."
        )
    if not 0 <= seed <= MAX_SEED:
        problems["seed"] = "The seed is a whole number from 0 to 2⁶³ − 1."
    if not 1 <= steps <= MAX_STEPS:
        problems["steps"] = f"Take 1 to {MAX_STEPS} steps."
    elif (most := model_version.most_steps) and steps > most:
        problems["steps"] = f"{model_version} has a noise schedule of {most} timesteps: take at most {most} steps."
    if not (math.isfinite(guidance) and 0 <= guidance <= MAX_GUIDANCE):
        problems["guidance"] = f"Guidance lies between 0 and {MAX_GUIDANCE:.0f}."
    if scheduler not in SCHEDULERS:
        problems["scheduler"] = "This scheduler is not known."
    elif model_version.is_flow and scheduler not in FLOW_SCHEDULERS:
        problems["scheduler"] = f"{model_version} is a flow-matching model: choose the scheduler “The model's own”."
    factor, largest = model_version.size_factor, model_version.largest_side
    for field, side in (("width", width), ("height", height)):
        if not factor <= side <= largest or side % factor:
            problems[field] = f"The {field} is a multiple of {factor} px, at most {largest} px for this model."
    return problems


def request_batch(
    *,
    model_version: ModelVersion,
    prompt_set: PromptSet,
    by: User,
    images_per_prompt: int = 4,
    seed: int = 0,
    steps: int = 20,
    guidance: float = 4.0,
    scheduler: str = "",
    negative_prompt: str = "",
    width: int | None = None,
    height: int | None = None,
    name: str = "",
    after: Sequence[Job] = (),
) -> GenerationBatch:
    """Ask for k images of each prompt, and queue the job that draws them. Raises BatchRefused with sentences.

    Without a width or height the model's own size is taken, and without a scheduler DDIM, or a flow's own. `after` are jobs that must have succeeded before.
    """
    wanted: dict[str, Any] = {
        "images_per_prompt": images_per_prompt,
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "scheduler": scheduler or default_scheduler(model_version),
        "width": width or model_version.image_size,
        "height": height or model_version.image_size,
    }
    problems = find_problems(model_version=model_version, prompt_count=prompt_set.prompt_count, **wanted)
    if negative_prompt and not model_version.takes_negative_prompts:
        problems["negative_prompt"] = f"{model_version} is a Flux model, which takes no negative prompt."
    if problems:
        raise BatchRefused(problems)
    total = prompt_set.prompt_count * images_per_prompt
    name = name.strip() or f"{prompt_set.name} by v{model_version.number}"
    with transaction.atomic():
        job = enqueue(DRAW_KIND, {}, label=f"Draw {name}", created_by=by, after=after)
        batch = GenerationBatch.objects.create(
            name=name,
            model_version=model_version,
            prompt_set=prompt_set,
            negative_prompt=negative_prompt,
            sample_count=total,
            job=job,
            created_by=by,
            **wanted,
        )
        Job.objects.filter(pk=job.pk).update(url=batch.get_absolute_url(), progress_total=total)
    return batch


def find_drawn(
    *,
    model_version: ModelVersion,
    prompt_set: PromptSet,
    images_per_prompt: int,
    seed: int,
    steps: int,
    guidance: float,
) -> GenerationBatch | None:
    """The newest complete batch that `request_batch` would draw again, pixel for pixel, from these; None where there is none.

    What another version of this program drew is none: it may draw the same request otherwise.
    """
    other = Sample.objects.filter(batch=OuterRef("pk")).exclude(code_version=settings.CODE_VERSION)
    same = GenerationBatch.objects.filter(
        model_version=model_version,
        prompt_set=prompt_set,
        images_per_prompt=images_per_prompt,
        seed=seed,
        steps=steps,
        guidance=guidance,
        scheduler=default_scheduler(model_version),
        negative_prompt="",
        width=model_version.image_size,
        height=model_version.image_size,
        job__state=JobState.SUCCEEDED,
    )
    complete = same.annotate(drawn=Count("samples")).filter(~Exists(other), drawn=F("sample_count"))
    return complete.order_by("-pk").first()


def default_scheduler(model_version: ModelVersion) -> str:
    """What a model is drawn with where nobody says."""
    return FLOW_SCHEDULERS[0] if model_version.is_flow else "ddim"


def plan_batch(batch: GenerationBatch) -> list[tuple[Prompt, int]]:
    """(prompt, index) of every sample of a batch, in the order that fixes the groups in which they are drawn."""
    prompts = batch.prompt_set.prompts.order_by("position")
    return [(prompt, index) for prompt in prompts for index in range(batch.images_per_prompt)]


def make_request(batch: GenerationBatch, prompt: Prompt, index: int) -> DrawRequest:
    """What the engine is asked for one sample."""
    return DrawRequest(
        prompt=prompt.text,
        negative_prompt=batch.negative_prompt,
        seed=sample_seed(batch.seed, prompt.text, index),
        steps=batch.steps,
        guidance=batch.guidance,
        width=batch.width,
        height=batch.height,
        scheduler=batch.scheduler,
    )


def draw_batch(context: JobContext) -> dict[str, Any]:
    """What the job does: draw every group of the plan that is not complete, and keep its samples in one transaction.

    Groups are cut from the whole plan and drawn whole, because the last bits of an image depend on what it is drawn
    together with: a batch that was interrupted ends with the pixels of one that was not.
    """
    batch = GenerationBatch.objects.select_related("model_version", "prompt_set").get(job_id=context.job.pk)
    plan = plan_batch(batch)
    drawn = set(batch.samples.values_list("prompt_id", "index"))
    for start in range(0, len(plan), CHUNK_SIZE):
        group = plan[start : start + CHUNK_SIZE]
        if all((prompt.pk, index) in drawn for prompt, index in group):
            continue
        context.check()
        _draw_group(context, batch, group, done=len(drawn))
        drawn |= {(prompt.pk, index) for prompt, index in group}
        context.progress(len(drawn), len(plan))
    return {"samples": len(drawn)}


def _draw_group(context: JobContext, batch: GenerationBatch, group: list[tuple[Prompt, int]], *, done: int) -> None:
    version = batch.model_version
    requests = [make_request(batch, prompt, index) for prompt, index in group]

    def watch(step: int, steps: int) -> bool:
        context.check()
        context.progress(done, batch.sample_count, f"Step {step} of {steps}")
        return True

    images = draw_images(version.folder, version.content_hash, requests, watch)
    samples = [
        Sample(
            batch=batch,
            prompt=prompt,
            index=index,
            seed=request.seed,
            image=image.image,
            thumbnail=image.thumbnail,
            width=image.width,
            height=image.height,
            code_version=settings.CODE_VERSION,
        )
        for (prompt, index), request, image in zip(group, requests, images, strict=True)
    ]
    with context.fenced():
        Sample.objects.bulk_create(samples, ignore_conflicts=True)


def measure_pace(batch: GenerationBatch, drawn: int) -> Pace:
    """The pace of a running batch over its last minute, of which `drawn` samples are there."""
    recent = batch.samples.filter(drawn_at__gt=Now() - PACE_WINDOW)
    span = recent.aggregate(first=Min("drawn_at"), last=Max("drawn_at"))
    if not span["first"] or span["first"] == span["last"]:
        return Pace(None, None)
    # The first group's images were drawn before its own time, so they are not counted.
    count = recent.filter(drawn_at__gt=span["first"]).count()
    rate = count / (span["last"] - span["first"]).total_seconds()
    return Pace(rate, (batch.sample_count - drawn) / rate)


def expect_seconds(model_version: ModelVersion, *, images: int, steps: int, pixels: int) -> float | None:
    """How long a batch will probably take, from this model's last complete one; None if there is none to go by."""
    last = (
        GenerationBatch.objects.filter(model_version=model_version, job__state=JobState.SUCCEEDED)
        .select_related("job")
        .order_by("-id")
        .first()
    )
    if last is None or not last.job.started_at or not last.job.finished_at:
        return None
    took = (last.job.finished_at - last.job.started_at).total_seconds()
    work = last.sample_count * last.steps * last.width * last.height
    return took * images * steps * pixels / work


def count_samples() -> int:
    """How many samples there are, without counting every one: a complete batch has all that it was asked for (`manage.py verify`
    looks whether that is so), and those of the others are counted."""
    is_complete = Q(job__state=JobState.SUCCEEDED)
    drawn = Sample.objects.filter(batch=OuterRef("pk")).order_by().values("batch").annotate(n=Count("pk")).values("n")
    # One statement sees both at one moment, in which no batch is counted twice or left out.
    number = Case(When(is_complete, then=F("sample_count")), default=Coalesce(Subquery(drawn), 0))
    return GenerationBatch.objects.aggregate(n=Sum(number))["n"] or 0


def count_drawn(batches: Sequence[GenerationBatch]) -> dict[int, int]:
    """{batch id: samples drawn so far}, in one query."""
    rows = GenerationBatch.objects.filter(pk__in=[batch.pk for batch in batches]).annotate(drawn=Count("samples"))
    return dict(rows.values_list("pk", "drawn"))


def find_pairs(version: ModelVersion, *, limit: int = 24) -> list[tuple[Sample, Sample]]:
    """(parent's sample, this version's sample) drawn from the same prompt, seed and settings, the newest first."""
    if version.parent_id is None:
        return []
    own = version.batches.filter(samples__isnull=False).order_by("-id").first()
    if own is None:
        return []
    # Every prompt comes once before any comes twice.
    firsts = own.samples.select_related("prompt").order_by("index", "prompt__position")
    mine = {(each.prompt.text, each.seed): each for each in firsts[:500]}
    theirs = (
        Sample.objects.filter(
            Q(batch__model_version_id=version.parent_id, batch__steps=own.steps, batch__guidance=own.guidance),
            seed__in=[seed for _, seed in mine],
            width=own.width,
            height=own.height,
        )
        .select_related("prompt")
        .order_by("-id")
    )
    pairs: dict[tuple[str, int], tuple[Sample, Sample]] = {}
    for sample in theirs:
        key = (sample.prompt.text, sample.seed)
        if key in mine:
            pairs.setdefault(key, (sample, mine[key]))
    return [pairs[key] for key in mine if key in pairs][:limit]
