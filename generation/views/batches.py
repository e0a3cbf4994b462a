"""Pages of generation batches."""

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import AnonymousUser
from django.db.models import Prefetch, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Role, User
from accounts.policies import policy
from generation import batches as verbs
from generation.engine.requests import CHUNK_SIZE
from generation.forms import BatchForm
from generation.models import GenerationBatch, ModelVersion, Sample
from generation.views.durations import say_duration
from generation.views.keyset import newest_page
from generation.views.members import TEAM, may_write, member
from jobs.models import JobState
from jobs.queue import request_cancel, retry

PAGE = 25
WALL = 240
# The fields that “Draw again” takes over from a batch.
REPEATED = [
    "prompt_set",
    "model_version",
    "images_per_prompt",
    "seed",
    "steps",
    "guidance",
    "scheduler",
    "negative_prompt",
    "width",
    "height",
]


@policy(read=TEAM)
@require_safe
def batches(request: HttpRequest) -> HttpResponse:
    """All batches, the newest first, with their progress and first images."""
    first = Sample.objects.filter(index=0).order_by("prompt__position")[:4]
    visible = (
        GenerationBatch.objects.visible_to(member(request))
        .select_related("job", "model_version", "prompt_set", "created_by")
        .prefetch_related(Prefetch("samples", first, to_attr="first_samples"))
    )
    shown, next_url = newest_page(visible, request, PAGE)
    drawn = verbs.count_drawn(shown)
    context = {
        "batches": [(batch, drawn[batch.pk]) for batch in shown],
        "is_moving": any(batch.job.is_open for batch in shown),
        "next_url": next_url,
        "first_url": reverse("batches") if request.GET.get("before") else "",
        "has_models": ModelVersion.objects.exists() if not shown else True,
        "may_write": may_write(member(request), *TEAM),
    }
    return render(request, "generation/batches.html", context)


@policy(read=TEAM, write=TEAM)
@require_http_methods(["GET", "HEAD", "POST"])
def batch_new(request: HttpRequest) -> HttpResponse:
    """Ask for a batch. `?prompt_set=`, `?model=` (a number) and `?again=` (a batch) fill the form."""
    if request.method == "POST":
        form = BatchForm(request.POST, user=member(request))
        if form.is_valid() and (batch := form.create(member(request))):
            return redirect(batch)
    else:
        form = BatchForm(initial=_initial(request), user=member(request))
    estimate = _estimate(request.POST.dict() if form.is_bound else form.initial, member(request))
    return render(
        request,
        "generation/batch_new.html",
        {"form": form, "estimate": estimate, "may_write": may_write(member(request), *TEAM)},
    )


@policy(read=TEAM)
@require_safe
def batch_estimate(request: HttpRequest) -> HttpResponse:
    """How many images the form asks for, and about how long they take."""
    return render(
        request, "generation/_batch_estimate.html", {"estimate": _estimate(request.GET.dict(), member(request))}
    )


@policy(read=TEAM)
@require_safe
def batch(request: HttpRequest, pk: int) -> HttpResponse:
    """One batch: how far it is, its settings and its images."""
    shown = _find(request, pk)
    context = {
        **_state(shown),
        **_wall(request, shown),
        "scheduler_label": verbs.SCHEDULER_LABELS.get(shown.scheduler, shown.scheduler),
        "may_write": may_write(member(request), *TEAM),
        "campaign_url": _campaign_url(shown, request.user),
    }
    return render(request, "generation/batch.html", context)


@policy(read=TEAM)
@require_safe
def batch_state(request: HttpRequest, pk: int) -> HttpResponse:
    """The moving part of the page; when the work is over the page is asked to load itself once more."""
    shown = _find(request, pk)
    response = render(request, "generation/_batch_state.html", _state(shown))
    if not shown.job.is_open:
        response["HX-Refresh"] = "true"
    return response


@policy(read=TEAM)
@require_safe
def batch_wall(request: HttpRequest, pk: int) -> HttpResponse:
    """The images after `?after=`, which are added to the end of the wall."""
    shown = _find(request, pk)
    return render(request, "generation/_batch_wall.html", {"batch": shown, **_wall(request, shown)})


@policy(write=TEAM)
@require_POST
def batch_cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop drawing; the samples that are there stay."""
    shown = _find(request, pk)
    if request_cancel(shown.job, by=member(request)):
        messages.success(request, f"Batch “{shown}” is being cancelled. The images that are drawn stay.")
    else:
        messages.info(request, f"Batch “{shown}” was over or being cancelled already.")
    return redirect(shown)


@policy(write=TEAM)
@require_POST
def batch_retry(request: HttpRequest, pk: int) -> HttpResponse:
    """Go on with a batch that failed or was cancelled."""
    shown = _find(request, pk)
    if retry(shown.job, by=member(request)):
        messages.success(request, f"Batch “{shown}” goes on where it stopped.")
    else:
        messages.info(request, f"Batch “{shown}” cannot go on: it is not over, or it waits for another job.")
    return redirect(shown)


def _find(request: HttpRequest, pk: int) -> GenerationBatch:
    visible = GenerationBatch.objects.visible_to(member(request))
    found: GenerationBatch = get_object_or_404(
        visible.select_related("job", "model_version", "prompt_set", "created_by"), pk=pk
    )
    return found


def _state(batch: GenerationBatch) -> dict[str, Any]:
    drawn = batch.samples.count()
    pace = verbs.measure_pace(batch, drawn) if batch.job.state == JobState.RUNNING else verbs.Pace(None, None)
    return {
        "batch": batch,
        "job": batch.job,
        "drawn": drawn,
        "rate": f"{pace.rate:.1f} images/s" if pace.rate and pace.rate >= 0.1 else "",
        "left": say_duration(pace.seconds_left) if pace.seconds_left is not None else "",
    }


def _wall(request: HttpRequest, batch: GenerationBatch) -> dict[str, Any]:
    """Samples of one page of the wall. A place on it is prompt position times k plus index, which grows as they come."""
    after = request.GET.get("after", "")
    start = int(after) + 1 if after.isdecimal() and len(after) < 10 else 0
    position, index = divmod(start, batch.images_per_prompt)
    rest = batch.samples.filter(Q(prompt__position__gt=position) | Q(prompt__position=position, index__gte=index))
    samples = list(rest.select_related("prompt").order_by("prompt__position", "index")[: WALL - start % WALL])
    last = samples[-1].prompt.position * batch.images_per_prompt + samples[-1].index if samples else start - 1
    is_full = (last + 1) % WALL == 0 and last >= start
    return {
        "samples": samples,
        "wall_after": last,
        # The group that is being drawn has its places already, so that the wall grows in steady rows.
        "wall_blanks": range(min(CHUNK_SIZE, batch.sample_count - last - 1)),
        "wall_polls": batch.job.is_open and not is_full,
        "wall_more": is_full and last + 1 < batch.sample_count,
    }


def _initial(request: HttpRequest) -> dict[str, Any]:
    again = request.GET.get("again", "")
    if again.isdecimal():
        known = get_object_or_404(GenerationBatch.objects.visible_to(member(request)), pk=int(again))
        values = {name: getattr(known, name) for name in REPEATED}
        return {**values, "prompt_set": known.prompt_set_id, "model_version": known.model_version_id}
    number = request.GET.get("model", "")
    chosen = ModelVersion.objects.promoted()
    if number.isdecimal() and len(number) < 10:
        chosen = ModelVersion.objects.filter(number=int(number)).first() or chosen
    initial: dict[str, Any] = {"model_version": chosen.pk if chosen else None}
    if chosen:
        initial["scheduler"] = verbs.default_scheduler(chosen)
    if (key := request.GET.get("prompt_set", "")).isdecimal():
        initial["prompt_set"] = int(key)
    return initial


def _estimate(values: Mapping[str, Any], user: User) -> dict[str, Any]:
    """What the values of the form, complete or not, come to."""
    form = BatchForm(
        {
            **{name: field.initial for name, field in BatchForm.base_fields.items()},
            **{k: v for k, v in values.items() if v},
        },
        user=user,
    )
    form.is_valid()
    cleaned = form.cleaned_data
    prompt_set, version, k = (cleaned.get(name) for name in ("prompt_set", "model_version", "images_per_prompt"))
    if not (prompt_set and version and k):
        return {}
    width, height = cleaned.get("width") or version.image_size, cleaned.get("height") or version.image_size
    total = prompt_set.prompt_count * k
    seconds = verbs.expect_seconds(version, images=total, steps=cleaned.get("steps") or 20, pixels=width * height)
    return {
        "prompts": prompt_set.prompt_count,
        "each": k,
        "total": total,
        "is_too_many": total > verbs.MAX_SAMPLES,
        "limit": verbs.MAX_SAMPLES,
        "width": width,
        "height": height,
        "time": say_duration(seconds) if seconds is not None else "",
    }


def _campaign_url(batch: GenerationBatch, user: User | AnonymousUser) -> str:
    """Where a curator opens a campaign from the batch; empty for everybody else."""
    if not isinstance(user, User) or not (user.is_superuser or user.has_role(Role.CURATOR)):
        return ""
    return f"{reverse('campaign_new')}?batch={batch.pk}"
