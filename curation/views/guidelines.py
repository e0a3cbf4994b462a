"""The guidelines of a campaign: how they changed, and changing them."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from accounts.models import Role, User
from accounts.policies import policy
from curation.campaign_forms import GuidelinesForm
from curation.guidelines import Part, changes
from curation.models import Campaign, CampaignState, GuidelineRevision
from curation.views.campaigns import TEAM, may_curate, read_key

PAGE = 10


@policy(read=TEAM, write=[Role.CURATOR])
@require_http_methods(["GET", "HEAD", "POST"])
def campaign_guidelines(request: HttpRequest, slug: str) -> HttpResponse:
    """Every revision of the guidelines and what it changed, and a form that adds one; `?before=` for older ones."""
    assert isinstance(request.user, User)
    found = get_object_or_404(Campaign.objects.visible_to(request.user), slug=slug)
    if request.method == "POST":
        form = GuidelinesForm(request.POST, campaign=found)
        if form.is_valid() and (revision := form.save(request.user)):
            messages.success(
                request,
                f"Revision {revision.number} is saved. Raters are told before their next item.",
            )
            return redirect("campaign_guidelines", slug=found.slug)
    else:
        form = GuidelinesForm(campaign=found)
    before = read_key(request.GET.get("before", ""))
    rows, next_url = _told(found, before)
    context = {
        "campaign": found,
        "form": form,
        "newest": found.revisions.first(),
        "revisions": rows,
        "next_url": next_url,
        "is_older": before is not None,
        "may_write": may_curate(request.user),
        "is_closed": found.state == CampaignState.CLOSED,
    }
    return render(request, "curation/campaign_guidelines.html", context)


def _told(campaign: Campaign, before: int | None) -> tuple[list[tuple[GuidelineRevision, list[Part]]], str]:
    """The newest revisions below that number with what each changed, and the address of the ones before them."""
    revisions = campaign.revisions.select_related("by")
    if before is not None:
        revisions = revisions.filter(number__lt=before)
    found = list(revisions[: PAGE + 1])
    older = {row.number + 1: row for row in found}
    told = [(row, changes(older[row.number].text, row.text) if row.number in older else []) for row in found[:PAGE]]
    return told, f"?before={found[PAGE - 1].number}" if len(found) > PAGE else ""
