"""Pages of datasets and their frozen versions."""

import time
from typing import Any

from django.contrib import messages
from django.db.models import Count, Max
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Role, User
from accounts.policies import policy
from curation import downloads
from curation.approvals import APPROVERS, NEEDS_REASON, ApprovalRefused, say, standing_of
from curation.dataset_forms import DatasetCampaignsForm, DatasetForm, FreezeForm
from curation.datasets import DatasetRefused, freeze, preview
from curation.integrity import version_problems
from curation.models import ApprovalAct, Campaign, Dataset, DatasetEntry, DatasetKind, DatasetVersion
from curation.pairs import waiting_comparisons
from curation.rules import join_names, names_in_words
from curation.views.campaigns import TEAM, may_curate, read_key
from generation.images import image_matches

WALL = 60
PAGE = 120
VERIFY_SECONDS = 15
# What the buttons are called.
SAID = {
    ApprovalAct.ASKED: "Ask for approval",
    ApprovalAct.APPROVED: "Approve",
    ApprovalAct.REFUSED: "Refuse",
    ApprovalAct.WITHDRAWN: "Withdraw the approval",
}


@policy(read=TEAM)
@require_safe
def datasets(request: HttpRequest) -> HttpResponse:
    """All datasets with their newest versions."""
    assert isinstance(request.user, User)
    rows = list(
        Dataset.objects.visible_to(request.user)
        .select_related("created_by")
        .annotate(version_count=Count("versions", distinct=True), frozen_at=Max("versions__frozen_at"))
    )
    newest = {
        version.dataset_id: version
        for version in DatasetVersion.objects.filter(dataset__in=rows).with_approval().order_by("dataset", "number")
    }
    context = {
        "datasets": [(dataset, newest.get(dataset.pk)) for dataset in rows],
        "may_write": may_curate(request.user),
        "has_campaigns": bool(rows) or Campaign.objects.visible_to(request.user).exists(),
    }
    return render(request, "curation/datasets.html", context)


@policy(read=[Role.CURATOR], write=[Role.CURATOR])
@require_http_methods(["GET", "HEAD", "POST"])
def dataset_new(request: HttpRequest) -> HttpResponse:
    """Name a selection; `?campaign=` chooses where it selects from."""
    assert isinstance(request.user, User)
    if request.method == "POST":
        form = DatasetForm(request.POST, user=request.user)
        if form.is_valid() and (dataset := form.create(request.user)):
            return redirect(dataset)
    else:
        slug = request.GET.get("campaign", "").replace("\0", "")
        chosen = Campaign.objects.visible_to(request.user).filter(slug=slug).first()
        form = DatasetForm(initial={"campaigns": [chosen.pk], "name": chosen.name} if chosen else {}, user=request.user)
    has_campaigns = form.fields["campaigns"].queryset.exists()  # type: ignore[attr-defined]
    return render(
        request,
        "curation/dataset_new.html",
        {"form": form, "has_campaigns": has_campaigns, "may_write": may_curate(request.user)},
    )


@policy(read=TEAM)
@require_safe
def dataset(request: HttpRequest, slug: str) -> HttpResponse:
    """One dataset: what it would contain if it were frozen now, how that differs, and its versions."""
    assert isinstance(request.user, User)
    found = get_object_or_404(Dataset.objects.visible_to(request.user).select_related("created_by"), slug=slug)
    now = preview(found, WALL)
    campaigns = list(found.campaigns.order_by("name"))
    context = {
        "dataset": found,
        "rule": _rule(found, join_names({campaign.rule for campaign in campaigns})),
        "campaigns": campaigns,
        "holds_pairs": found.kind == DatasetKind.PAIRS,
        "waiting": waiting_comparisons(found.campaigns.order_by("name")),
        "preview": now,
        "largest": max((row.accepted for row in now.balance), default=0),
        "versions": found.versions.with_approval().select_related("frozen_by").order_by("-number"),
        "freeze_form": FreezeForm(),
        "campaigns_form": DatasetCampaignsForm(dataset=found, user=request.user),
        "may_write": may_curate(request.user),
    }
    return render(request, "curation/dataset.html", context)


@policy(write=[Role.CURATOR])
@require_POST
def dataset_freeze(request: HttpRequest, slug: str) -> HttpResponse:
    """Freeze what the dataset contains now."""
    assert isinstance(request.user, User)
    found = get_object_or_404(Dataset.objects.visible_to(request.user), slug=slug)
    form = FreezeForm(request.POST)
    if not form.is_valid():
        messages.error(request, "The note is too long: at most 300 characters.")
        return redirect(found)
    try:
        version = freeze(found, by=request.user, note=form.cleaned_data["note"])
    except DatasetRefused as refused:
        messages.error(request, refused.args[0])
        return redirect(found)
    if version.newly_frozen:
        messages.success(request, f"Frozen as {version} with {version.entry_count} {found.unit}s.")
    else:
        messages.info(request, f"Nothing has changed since {version}, so it is that version again.")
    return redirect(version)


@policy(write=[Role.CURATOR])
@require_POST
def dataset_campaigns(request: HttpRequest, slug: str) -> HttpResponse:
    """Choose which campaigns the dataset selects from."""
    assert isinstance(request.user, User)
    found = get_object_or_404(Dataset.objects.visible_to(request.user), slug=slug)
    form = DatasetCampaignsForm(request.POST, dataset=found, user=request.user)
    if form.is_valid() and form.save():
        messages.success(request, "The selection was changed. Versions that are frozen stay as they are.")
    for errors in form.errors.values():
        messages.error(request, str(errors[0]))
    return redirect(found)


@policy(read=TEAM)
@require_safe
def dataset_version(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """One frozen version: its images or pairs, its hash, where it is used, and how to have it. `?verify=1` checks it."""
    assert isinstance(request.user, User)
    version = _version(request.user, slug, number)
    standing = standing_of(version, request.user)
    entries = version.entries.select_related("sample", "rejected").order_by("position")
    after = read_key(request.GET.get("after", ""))
    if after is not None:
        entries = entries.filter(position__gt=after)
    rows = list(entries[: PAGE + 1])
    shown = rows[:PAGE]
    context = {
        "version": version,
        "entries": shown,
        "holds_pairs": version.dataset.kind == DatasetKind.PAIRS,
        "next_url": f"?after={shown[-1].position}" if len(rows) > PAGE else "",
        "first_url": reverse("dataset_version", args=[slug, number]) if after is not None else "",
        "buckets": version.entries.values_list("bucket").annotate(count=Count("pk")).order_by("-count", "bucket"),
        # Recipes point at versions from the room above; here they are only listed.
        "sources": version.recipe_sources.select_related("recipe").order_by("recipe__name"),
        "check": _verify(version) if request.GET.get("verify") else None,
        "rule": _rule(version.dataset, version.rule),
        "standing": standing,
        "offers": [(act, SAID[act]) for act in standing.offered],
        "needs_reason": any(act in NEEDS_REASON for act in standing.offered),
    }
    return render(request, "curation/dataset_version.html", context)


@policy(write=APPROVERS)
@require_POST
def dataset_approval(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Ask for approval of a version, approve or refuse it, or take an approval back; runs learn from approved versions only."""
    assert isinstance(request.user, User)
    version = _version(request.user, slug, number)
    try:
        said = say(
            version,
            request.POST.get("act", ""),
            by=request.user,
            note=request.POST.get("note", "").replace("\0", ""),
            seen=read_key(request.POST.get("seen", "")),
        )
    except ApprovalRefused as refused:
        messages.error(request, refused.args[0])
    else:
        messages.success(request, f"{version}: {said.get_act_display().lower()}.")
    return redirect(version)


@policy(read=TEAM)
@require_safe
def dataset_version_download(request: HttpRequest, slug: str, number: int) -> HttpResponseBase:
    """The version as a ZIP with its images, or with `?format=jsonl` as JSON lines, or with `?format=manifest` its manifest."""
    assert isinstance(request.user, User)
    version = _version(request.user, slug, number)
    form = request.GET.get("format", "zip")
    makers: dict[str, tuple[Any, str, str]] = {
        "zip": (downloads.archive, "application/zip", "zip"),
        "jsonl": (downloads.jsonl, "application/x-ndjson", "jsonl"),
        "manifest": (downloads.manifest, "application/json", "json"),
    }
    if form not in makers:
        raise Http404
    make, content_type, suffix = makers[form]
    response = StreamingHttpResponse(make(version), content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{slug}-v{number}.{suffix}"'
    return response


def _rule(dataset: Dataset, name: str) -> str:
    """The rule in words, for what the dataset holds."""
    return names_in_words(name, compares=dataset.kind == DatasetKind.PAIRS)


def _version(user: User, slug: str, number: int) -> DatasetVersion:
    if number > 2**31 - 1:
        raise Http404
    visible = DatasetVersion.objects.visible_to(user).select_related("dataset", "frozen_by")
    return get_object_or_404(visible, dataset__slug=slug, number=number)


def _verify(version: DatasetVersion) -> dict[str, Any]:
    """Rows and manifest are checked whole; images until the time is up, which `manage.py verify` does to the end."""
    problems = list(version_problems(version))
    entries = DatasetEntry.objects.filter(version=version)
    named = {sha256 for row in entries.values_list("image", "rejected_image") for sha256 in row}
    names = sorted(named - {""})
    checked, until = 0, time.monotonic() + VERIFY_SECONDS
    for sha256 in names:
        if time.monotonic() > until:
            break
        try:
            if not image_matches(sha256):
                problems.append(f"The image {sha256} was changed.")
        except FileNotFoundError:
            problems.append(f"The image {sha256} is missing.")
        checked += 1
    return {"problems": problems, "checked": checked, "images": len(names)}
