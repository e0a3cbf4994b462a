"""Several runs side by side: their curves in one chart each, and what differs in what they were asked."""

from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.policies import policy
from generation.views.members import member
from training import recipes
from training.curves import shared_charts, shared_curve
from training.models import TrainingRun
from training.recipe_rows import RecipeRefused
from training.recipe_words import describe_sources
from training.views.recipes import LABELS, TEAM, readable

# As many as there are colours for lines.
MOST = 6


@require_safe
@policy(read=TEAM)
def compare(request: HttpRequest) -> HttpResponse:
    """The runs of `?run=1&run=2`, at most six; without any, which can be chosen."""
    chosen = _chosen(request)
    others = TrainingRun.objects.visible_to(member(request)).exclude(pk__in=[run.pk for run in chosen])
    context = {
        "runs": chosen,
        "rows": _differences(chosen),
        "charts": shared_charts(chosen),
        "query": urlencode([("run", run.pk) for run in chosen]),
        "others": others[:30] if len(chosen) < MOST else [],
        "most": MOST,
    }
    return render(request, "training/runs_compare.html", context)


@require_safe
@policy(read=TEAM)
def compare_curves(request: HttpRequest) -> HttpResponse:
    """The points of one chart, a line for each run."""
    chosen = _chosen(request)
    try:
        points = shared_curve(chosen, request.GET.get("chart", "validation"), request.GET.get("seen", ""))
    except KeyError:
        return JsonResponse({"detail": "There is no such chart."}, status=404)
    return JsonResponse(points, headers={"Cache-Control": "no-store"})


def _chosen(request: HttpRequest) -> list[TrainingRun]:
    """The runs of the address that the person may see, in its order; what is no run is passed over."""
    asked = [int(each) for each in request.GET.getlist("run") if each.isdecimal() and len(each) < 18]
    found = TrainingRun.objects.visible_to(member(request)).select_related(
        "job", "recipe__then", "parent", "result", "created_by"
    )
    by_key = {run.pk: run for run in found.filter(pk__in=asked)}
    return [by_key[key] for key in dict.fromkeys(asked) if key in by_key][:MOST]


def _differences(chosen: list[TrainingRun]) -> list[dict[str, Any]]:
    """[{"label", "values", "same"}]: sources first, then every setting that one of the runs has."""
    tables = [_sources(run) for run in chosen]
    settings = [dict(readable(run.spec)) for run in chosen]
    rows = [("Parent", [str(run.parent) for run in chosen]), ("Recipe", [str(run.recipe) for run in chosen])]
    rows.append(("Sources", tables))
    for label in LABELS.values():
        values = [each.get(label, "–") for each in settings]
        if any(value != "–" for value in values):
            rows.append((label, values))
    return [
        {"label": label, "values": values, "same": len({str(value) for value in values}) == 1} for label, values in rows
    ]


def _sources(run: TrainingRun) -> str:
    try:
        schedule = recipes.schedule_of(run.parent)
    except RecipeRefused:
        schedule = None
    return describe_sources(run.recipe, schedule)
