"""Rehearsals: two steps of a run before it is started, and what they say."""

import uuid
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from accounts.models import Role
from accounts.policies import policy
from generation.models import ModelVersion
from generation.views.durations import say_duration
from generation.views.members import member
from jobs.models import Job
from training import rehearsals
from training.cadence import OF_CADENCE
from training.models import Recipe
from training.recipe_rows import RecipeRefused
from training.run_forms import RunForm
from training.views.recipes import TEAM, may_run


@require_POST
@policy(write=[Role.OPERATOR])
def rehearse(request: HttpRequest) -> HttpResponse:
    """Queue a rehearsal of what the run's form says."""
    form = RunForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Nothing was rehearsed: the form has a mistake.")
        return redirect("run_new")
    try:
        job = rehearsals.request_rehearsal(
            form.cleaned_data["recipe"],
            parent=form.cleaned_data["parent"],
            by=member(request),
            overrides=form.overrides(),
            request_key=str(form.cleaned_data["request_key"] or ""),
        )
    except RecipeRefused as refused:
        messages.error(request, refused.sentence)
        return redirect("run_new")
    return redirect("rehearsal", job.pk)


@require_safe
@policy(read=TEAM)
def rehearsal(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """What a rehearsal measured, or how far it is."""
    job = get_object_or_404(Job, pk=pk, kind=rehearsals.KIND)
    found = rehearsals.rehearsed(job)
    parent = ModelVersion.objects.filter(pk=job.payload["parent"]).first()
    context = {
        "job": job,
        "found": found,
        "recipe": Recipe.objects.filter(pk=job.payload["recipe"]).first(),
        "parent": parent,
        "spec": job.payload["spec"],
        "query": urlencode(_asked(job, parent)),
        "step": say_duration(found.step_seconds) if found and found.step_seconds >= 1 else "",
        "time": say_duration(found.run_seconds) if found else "",
        "may_run": may_run(request),
    }
    response = render(request, "training/rehearsal.html", context)
    if request.headers.get("HX-Request") and not job.is_open:
        # The polled part is over; the buttons around it change too.
        response["HX-Refresh"] = "true"
    return response


def _asked(job: Job, parent: ModelVersion | None) -> dict[str, Any]:
    """What the form of the run begins with, to start what was rehearsed."""
    payload = job.payload
    return {
        "recipe": payload["recipe"],
        "parent": parent.number if parent else "",
        "steps": payload["spec"]["steps"],
        "seed": payload["spec"]["seed"],
        **{key: value for key, value in payload.get("changed", {}).items() if key in OF_CADENCE},
    }
