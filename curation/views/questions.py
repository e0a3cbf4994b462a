"""The questions of a campaign: how they read and once read, and changing that."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from accounts.models import Role, User
from accounts.policies import policy
from curation.guidelines import Part, changes
from curation.models import Campaign, CampaignState, QuestionRevision
from curation.question_forms import QuestionsForm
from curation.questions import in_words, specs_of
from curation.views.campaigns import TEAM, may_curate, read_key

PAGE = 10


@policy(read=TEAM, write=[Role.CURATOR])
@require_http_methods(["GET", "HEAD", "POST"])
def campaign_questions(request: HttpRequest, slug: str) -> HttpResponse:
    """Every revision of how the questions read and what it changed, and a form that adds one; `?before=` for older ones."""
    assert isinstance(request.user, User)
    found = get_object_or_404(Campaign.objects.visible_to(request.user), slug=slug)
    form = QuestionsForm(request.POST or None, campaign=found)
    if request.method == "POST" and form.is_valid() and (revision := form.save(request.user)):
        messages.success(request, f"Revision {revision.number} is saved. Raters have it before their next item.")
        return redirect("campaign_questions", slug=found.slug)
    before = read_key(request.GET.get("before", ""))
    rows, next_url = _told(found, before)
    context = {
        "campaign": found,
        "form": form,
        "newest": found.question_revisions.first(),
        "now": in_words(specs_of(found)),
        "revisions": rows,
        "next_url": next_url,
        "is_older": before is not None,
        "may_write": may_curate(request.user),
        "is_closed": found.state == CampaignState.CLOSED,
    }
    return render(request, "curation/campaign_questions.html", context)


def _told(campaign: Campaign, before: int | None) -> tuple[list[tuple[QuestionRevision, list[Part], str]], str]:
    """The newest revisions below that number, each with what it changed and how it reads, and the address of the ones before
    them."""
    revisions = campaign.question_revisions.select_related("by")
    if before is not None:
        revisions = revisions.filter(number__lt=before)
    found = list(revisions[: PAGE + 1])
    words = {row.number: in_words(row.questions) for row in found}
    told = [
        (row, changes(words[row.number - 1], words[row.number]) if row.number - 1 in words else [], words[row.number])
        for row in found[:PAGE]
    ]
    return told, f"?before={found[PAGE - 1].number}" if len(found) > PAGE else ""
