"""Corpora: the list, the form, and what is in one."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.policies import policy
from generation.forms import LicenceForm
from generation.views.licences import take_licence
from generation.views.members import TEAM, may_write, member
from jobs import queue
from jobs.models import JobState
from jobs.progress import describe_progress
from training import corpora
from training.corpus_forms import CorpusForm
from training.engine.shards import CorpusRefused
from training.models import Corpus, TrainingRun

RUNS_SHOWN = 20


@require_safe
@policy(read=TEAM)
def corpus_list(request: HttpRequest) -> HttpResponse:
    """All corpora, the newest first."""
    context = {
        "corpora": Corpus.objects.visible_to(member(request)).select_related("job", "created_by"),
        "may_write": may_write(member(request), *TEAM),
        "problem": corpora.root_problem(),
    }
    return render(request, "training/corpora.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@policy(read=TEAM, write=TEAM)
def corpus_new(request: HttpRequest) -> HttpResponse:
    """The form of a new corpus; `?folder=`, `?name=`, `?least_side=`, `?captions=` and `?licence=` fill it in."""
    form = CorpusForm(request.POST or None, initial=request.GET.dict())
    if request.method == "POST" and form.is_valid():
        made = form.create(member(request))
        if made is not None:
            messages.success(request, f"The shards of {made} are being read. That can take hours; it may be stopped.")
            return redirect(made)
    problem = corpora.root_problem()
    folders, unread = [], ""
    if not problem:
        try:
            folders = corpora.find_folders()
        except CorpusRefused as refused:
            unread = refused.sentence
    context = {
        "form": form,
        "problem": problem,
        "unread": unread,
        "folders": folders,
        "bucket": corpora.bucket(),
        "may_write": may_write(member(request), *TEAM),
    }
    return render(request, "training/corpus_new.html", context, status=422 if form.errors else 200)


@require_safe
@policy(read=TEAM)
def corpus(request: HttpRequest, slug: str) -> HttpResponse:
    """One corpus: how far it is, what is in it, what was left out, and what uses it."""
    found = _load(request, slug)
    job = found.check_job if found.check_job and found.check_job.is_open else found.job
    most = max((count for *_, count in found.sides), default=1)
    context: dict[str, Any] = {
        "corpus": found,
        "job": job,
        "progress": describe_progress(job, unit="MiB"),
        "sides": [(_stretch(low, below), count, 100 * count / most) for low, below, count in found.sides],
        "may_write": may_write(member(request), *TEAM),
        "licence_form": LicenceForm(initial={"licence": found.licence}),
        "sources": found.recipe_sources.select_related("recipe").order_by("-recipe_id"),
        "runs": TrainingRun.objects.visible_to(member(request))
        .filter(recipe__sources__corpus=found)
        .select_related("job", "result")
        .distinct()[:RUNS_SHOWN],
        "is_stopped": not found.content_hash and job.state in (JobState.FAILED, JobState.CANCELLED),
    }
    return render(request, "training/corpus.html", context)


@require_POST
@policy(write=TEAM)
def corpus_stop(request: HttpRequest, slug: str) -> HttpResponse:
    """Stop reading, or comparing, the shards; what was read is kept."""
    found = _load(request, slug)
    job = found.check_job if found.check_job and found.check_job.is_open else found.job
    if queue.request_cancel(job, by=member(request)):
        messages.success(request, f"{found} is not read any further.")
    else:
        messages.warning(request, f"{found} was over or stopping already.")
    return redirect(found)


@require_POST
@policy(write=TEAM)
def corpus_resume(request: HttpRequest, slug: str) -> HttpResponse:
    """Go on reading after the last shard that was read whole."""
    found = _load(request, slug)
    if not found.content_hash and queue.retry(found.job, by=member(request)):
        messages.success(request, f"Reading {found} goes on after the last shard that was read whole.")
    else:
        messages.warning(request, f"Reading {found} was neither stopped nor did it fail.")
    return redirect(found)


@require_POST
@policy(write=TEAM)
def corpus_remove(request: HttpRequest, slug: str) -> HttpResponse:
    """Forget a corpus that was never read to the end, and open the form with what it was registered with."""
    found = _load(request, slug)
    if not corpora.remove_unread(found):
        messages.warning(request, f"{found} was read meanwhile, or is being read, so it stays.")
        return redirect(found)
    messages.success(request, f"{found} is forgotten. Its shards lie where they lay.")
    filled = {
        "folder": found.folder or ".",
        "name": found.name,
        "least_side": found.least_side,
        "captions": found.captions,
        "licence": found.licence,
    }
    return redirect(reverse("corpus_new", query=filled))


@require_POST
@policy(write=TEAM)
def corpus_licence(request: HttpRequest, slug: str) -> HttpResponse:
    """Say under which licence the images of a corpus are, or that it is not known."""
    return take_licence(request, _load(request, slug))


@require_POST
@policy(write=TEAM)
def corpus_verify(request: HttpRequest, slug: str) -> HttpResponse:
    """Compare every byte of the shards with what was indexed."""
    found = _load(request, slug)
    if found.content_hash:
        corpora.check_again(found, by=member(request))
        messages.success(request, f"Every byte of {found} is compared with what was indexed.")
    else:
        messages.warning(request, f"{found} has not been read yet.")
    return redirect(found)


def _load(request: HttpRequest, slug: str) -> Corpus:
    visible = Corpus.objects.visible_to(member(request)).select_related("job", "check_job", "created_by")
    found: Corpus = get_object_or_404(visible, slug=slug)
    return found


def _stretch(low: int, below: int | None) -> str:
    """ "512 to 767 px"."""
    return f"{low} px and more" if below is None else f"{low} to {below - 1} px"
