"""Runs: the list, the form, and one run as it goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Role, User
from accounts.policies import policy
from curation.models import Campaign, DatasetVersion
from generation.models import ModelVersion, PromptSet
from generation.views.durations import say_duration
from generation.views.keyset import newest_page
from generation.views.members import member
from jobs.models import JobState
from training import estimates, recipes, runs
from training.cadence import OF_CADENCE, describe_cadence
from training.curves import charts_of, curve
from training.drawings import drawings_of
from training.models import Recipe, TrainingRun
from training.recipe_rows import RecipeRefused, unseen_bands
from training.recipe_words import describe
from training.run_forms import RunForm
from training.tasks import TRAINER_LOG
from training.views.recipes import TEAM, may_run

LOG_BYTES = 12_000
RUNS_A_PAGE = 50


@require_safe
@policy(read=TEAM)
def run_list(request: HttpRequest) -> HttpResponse:
    """Runs, the newest first, by keyset."""
    found = TrainingRun.objects.visible_to(member(request)).select_related(
        "job", "recipe", "parent", "result", "created_by"
    )
    shown, next_url = newest_page(found, request, RUNS_A_PAGE)
    first_url = "?" if request.GET.get("before") else ""
    context = {"runs": shown, "next_url": next_url, "prev_url": first_url, "may_run": may_run(request)}
    return render(request, "training/runs.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@policy(read=TEAM, write=[Role.OPERATOR])
def run_new(request: HttpRequest) -> HttpResponse:
    """The form of a new run; `?recipe=` and `?parent=` (a number) choose to begin with."""
    form = RunForm(request.POST) if request.method == "POST" else RunForm(initial=_initial(request))
    if request.method == "POST" and form.is_valid():
        made = _start(form, member(request))
        if made is not None:
            messages.success(request, f"The run {made} is queued.")
            return redirect(made)
    context = {
        "form": form,
        "may_run": may_run(request),
        "has_recipe": Recipe.objects.exists(),
        "has_model": ModelVersion.objects.exists(),
        "estimate": _estimate_of(form),
        "to_approve": _to_approve(form),
        "cadence_errors": any(form[name].errors for name in OF_CADENCE),
        "cadence_chosen": any(form[name].value() not in (None, "") for name in OF_CADENCE),
    }
    return render(request, "training/run_new.html", context, status=422 if form.errors else 200)


@require_safe
@policy(read=TEAM)
def run_estimate(request: HttpRequest) -> HttpResponse:
    """What the run of the form would take, in words."""
    form = RunForm(request.GET)
    form.is_valid()
    return render(
        request, "training/_run_estimate.html", {"estimate": _estimate_of(form), "to_approve": _to_approve(form)}
    )


@require_safe
@policy(read=TEAM)
def run(request: HttpRequest, pk: int) -> HttpResponse:
    """One run: what it trains, how it goes, what it draws, and where it comes from."""
    found = _load(request, pk)
    try:
        schedule = recipes.schedule_of(found.parent)
    except RecipeRefused:
        schedule = None
    versions = list(
        DatasetVersion.objects.filter(recipe_sources__recipe=found.recipe).select_related("dataset").distinct()
    )
    context = {
        **_state(found),
        "sentence": describe(found.recipe, schedule, found.spec),
        "charts": charts_of(found),
        # Counted first: what is drawn meanwhile is shown now and again, and not missed.
        "sample_count": found.samples.count(),
        "drawings": drawings_of(found),
        "events": found.events.order_by("-position")[:40],
        "trackers": _trackers(found),
        "checkpoints": found.checkpoints.filter(kept=True),
        "saved_step": runs.saved_step(found),
        "log": _log_tail(found),
        "versions": versions,
        "campaigns": Campaign.objects.filter(datasets__versions__in=versions).distinct(),
        "following": TrainingRun.objects.filter(previous=found).first(),
        "may_run": may_run(request),
    }
    return render(request, "training/run.html", context)


@require_safe
@policy(read=TEAM)
def run_state(request: HttpRequest, pk: int) -> HttpResponse:
    """The state alone, polled while the run goes on; the page is loaded again when it has ended."""
    found = _load(request, pk)
    response = render(request, "training/_run_state.html", {**_state(found), "may_run": may_run(request)})
    if not found.job.is_open:
        response["HX-Refresh"] = "true"
    return response


@require_safe
@policy(read=TEAM)
def run_samples(request: HttpRequest, pk: int) -> HttpResponse:
    """The drawings so far; 204 where there are no more than the `count` that the page has."""
    found = _load(request, pk)
    count = found.samples.count()
    if request.GET.get("count") == str(count):
        return HttpResponse(status=204)
    context = {"sample_count": count, "drawings": drawings_of(found), "run": found, "is_open": found.job.is_open}
    return render(request, "training/_run_samples.html", context)


@require_safe
@policy(read=TEAM)
def run_curves(request: HttpRequest, pk: int) -> HttpResponse:
    """The points of one chart of the run, as JSON for the curves on its page."""
    found = get_object_or_404(TrainingRun.objects.visible_to(member(request)).select_related("job"), pk=pk)
    name = request.GET.get("chart", "loss")
    if name not in {chart.name for chart in charts_of(found)}:
        return JsonResponse({"detail": "There is no such chart."}, status=404)
    return JsonResponse(curve(found, name, request.GET.get("seen", "")), headers={"Cache-Control": "no-store"})


@require_POST
@policy(write=[Role.OPERATOR])
def run_pause(request: HttpRequest, pk: int) -> HttpResponse:
    """Have the run wait after its step, with a checkpoint, until somebody resumes it."""
    found = _load(request, pk)
    if not runs.request_pause(found, by=member(request)):
        messages.warning(request, f"The run {found} is over, paused or stopping already.")
    elif found.job.is_open:
        messages.success(request, f"The run {found} pauses after its step, with a checkpoint.")
    else:
        messages.success(request, f"The run {found} is paused.")
    return redirect(found)


@require_POST
@policy(write=[Role.OPERATOR])
def run_first(request: HttpRequest, pk: int) -> HttpResponse:
    """Put a waiting run before all others; where every worker is busy, the run that began last gives way and goes on behind it."""
    found = _load(request, pk)
    try:
        yielding = runs.run_first(found, by=member(request))
    except RecipeRefused as refused:
        messages.warning(request, refused.sentence)
    else:
        # Runs of one recipe have one name.
        after = f" Run {yielding.pk} “{yielding}” gives way after its step, and goes on behind it." if yielding else ""
        messages.success(request, f"Run {found.pk} “{found}” goes first.{after}")
    return redirect(found)


@require_POST
@policy(write=[Role.OPERATOR])
def run_cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop the run; its last checkpoint stays."""
    found = _load(request, pk)
    if not runs.request_cancel(found, by=member(request)):
        messages.warning(request, f"The run {found} was over or stopping already.")
    elif found.job.is_open:
        messages.success(request, f"The run {found} stops after saving a checkpoint.")
    else:
        messages.success(request, f"The run {found} is cancelled.")
    return redirect(found)


@require_POST
@policy(write=[Role.OPERATOR])
def run_resume(request: HttpRequest, pk: int) -> HttpResponse:
    """Queue a failed, cancelled or paused run again; with `from=beginning` it gives up what it saved."""
    found = _load(request, pk)
    from_beginning = request.POST.get("from") == "beginning"
    act = runs.start_over if from_beginning else runs.resume
    if act(found, by=member(request)):
        messages.success(request, f"The run {found} {_beginning_in_words(found)}.")
    else:
        messages.warning(request, f"The run {found} is neither failed nor cancelled nor paused.")
    return redirect(found)


def _beginning_in_words(found: TrainingRun) -> str:
    if runs.START_OVER in found.job.payload:
        return "starts over from the beginning"
    step = runs.saved_step(found)
    if step is None:
        return "starts from the beginning: it had no checkpoint yet"
    # Whether it is there is for the machine that trains to see.
    return f"goes on from its checkpoint of step {step}, if its folder is where it trains"


def _load(request: HttpRequest, pk: int) -> TrainingRun:
    visible = TrainingRun.objects.visible_to(member(request)).select_related(
        "job", "recipe__then", "parent", "result", "previous", "created_by"
    )
    found: TrainingRun = get_object_or_404(visible, pk=pk)
    return found


def _state(found: TrainingRun) -> dict[str, Any]:
    speed = runs.current_speed(found)
    return {
        "run": found,
        "is_open": found.job.is_open,
        # The job's note goes on with rate and time left, which the bar below it says.
        "phase": found.job.progress_note.partition(",")[0],
        "rate": f"{speed.images_per_second:.3g} images/s" if speed else "",
        "left": say_duration(speed.seconds_left) if speed and found.job.is_open else "",
        "resuming": _resuming_in_words(found) if found.job.state == JobState.PAUSED else "",
    }


def _resuming_in_words(found: TrainingRun) -> str:
    """What resuming a paused run comes to: a pause takes no wish back."""
    if runs.START_OVER in found.job.payload:
        return "Resuming starts it over from the beginning, as was asked."
    step = runs.saved_step(found)
    if step is None:
        return "Resuming starts from the beginning: it has no checkpoint yet."
    return f"Resuming goes on from its checkpoint of step {step}, to the same bits on the same machine."


def _trackers(found: TrainingRun) -> dict[str, str]:
    """The page of the run at each tracker that has it; an empty text where the tracker has none."""
    told = found.events.filter(kind="tracked").order_by("position").values_list("detail", flat=True)
    pages = {str(detail.get("tracker")): str(detail.get("url") or "") for detail in told}
    return {name: page if page.startswith(("https://", "http://")) else "" for name, page in pages.items()}


def _log_tail(found: TrainingRun) -> str:
    """The end of the trainer's log, if it lies on this machine."""
    path = runs.folder_of(found) / TRAINER_LOG
    try:
        return _tail(path)
    except OSError:
        return ""


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(0, 2)
        size = file.tell()
        file.seek(max(0, size - LOG_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    return text if size <= LOG_BYTES else text.partition("\n")[2]


def _initial(request: HttpRequest) -> dict[str, Any]:
    asked = request.GET.get("recipe", "")
    number = request.GET.get("parent", "")
    parent = (
        ModelVersion.objects.filter(number=int(number)).first() if number.isdecimal() and len(number) < 10 else None
    )
    newest = Recipe.objects.order_by("-pk").first()
    watch = PromptSet.objects.order_by("-pk").first()
    parent = parent or ModelVersion.objects.promoted()
    return {
        "recipe": int(asked) if asked.isdecimal() and len(asked) < 18 else newest.pk if newest else None,
        "parent": parent.pk if parent else None,
        "watch": watch.pk if watch else None,
        **{
            name: int(value)
            for name in ("steps", "seed", *OF_CADENCE)
            if (value := request.GET.get(name, "")).isdecimal() and len(value) < 20
        },
        # The only one that has decimals; what is no number is said at its field.
        **({"sample_guidance": request.GET["sample_guidance"][:8]} if request.GET.get("sample_guidance") else {}),
    }


def _start(form: RunForm, by: User) -> TrainingRun | None:
    cleaned = form.cleaned_data
    try:
        return runs.start_run(
            cleaned["recipe"],
            parent=cleaned["parent"],
            by=by,
            name=cleaned["name"],
            overrides=form.overrides(),
            watch=cleaned["watch"],
            request_key=str(cleaned["request_key"] or ""),
        )
    except RecipeRefused as refused:
        form.add_error(refused.field if refused.field in form.fields else None, refused.sentence)
    return None


def _to_approve(form: RunForm) -> list[DatasetVersion]:
    """What the chosen recipe learns from and nobody has approved."""
    recipe = _chosen(form)[0]
    return runs.versions_to_approve(recipe) if recipe else []


def _chosen(form: RunForm) -> tuple[Recipe | None, ModelVersion | None]:
    if form.is_bound:
        form.errors  # noqa: B018 - it is what fills `cleaned_data`.
        return form.cleaned_data.get("recipe"), form.cleaned_data.get("parent")
    recipe = Recipe.objects.filter(pk=form.initial.get("recipe") or 0).first()
    return recipe, ModelVersion.objects.filter(pk=form.initial.get("parent") or 0).first()


def _estimate_of(form: RunForm) -> dict[str, Any] | None:
    """What the run would take, as far as it is known; None until a recipe and a parent are chosen."""
    recipe, parent = _chosen(form)
    if form.is_bound:
        overrides = form.overrides()
    else:
        overrides = {key: form.initial[key] for key in runs.OVERRIDES if form.initial.get(key) is not None}
    if recipe is None or parent is None:
        return None
    found = estimates.estimate(recipe, parent, overrides=overrides)
    time = say_duration(found.seconds) if found.seconds is not None else ""
    cadence = describe_cadence({**recipes.hyperparameters_of(recipe), **overrides})
    return {
        "found": found,
        "memory": found.memory,
        "time": time,
        "cadence": cadence,
        "unseen": _unseen_of(recipe, parent, overrides),
    }


def _unseen_of(recipe: Recipe, parent: ModelVersion, overrides: Mapping[str, Any]) -> list[str]:
    """What drawings would miss of what the chain teaches; nothing where the parent cannot be trained, which starting says."""
    try:
        schedule = recipes.schedule_of(parent)
    except RecipeRefused:
        return []
    found = [
        sentence
        for each in recipes.chain_of(recipe)
        for sentence in unseen_bands(recipes.rows_of(each), schedule, {**recipes.hyperparameters_of(each), **overrides})
    ]
    return list(dict.fromkeys(found))
