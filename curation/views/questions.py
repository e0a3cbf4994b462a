"""The questions of a campaign: how they read and once read, and changing that."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from accounts.models import Role, User
from accounts.policies import policy
from curation.guidelines import Part, changes
from curation.models import Campaign, CampaignState, QuestionRevision
from curation.question_forms import OtherQuestionForm, QuestionsForm, leave_out
from curation.questions import QuestionsRefused, in_words, specs_of, why_not_otherwise
from curation.views.campaigns import TEAM, may_curate, read_key

PAGE = 10
# What a button says before the name of the question that is to go.
LEAVE_OUT = "leave out "


@policy(read=TEAM, write=[Role.CURATOR])
@require_http_methods(["GET", "HEAD", "POST"])
def campaign_questions(request: HttpRequest, slug: str) -> HttpResponse:
    """Every revision of how the questions read and what it changed, and a form that adds one; `?before=` for older ones."""
    assert isinstance(request.user, User)
    found = get_object_or_404(Campaign.objects.visible_to(request.user), slug=slug)
    sent = request.POST if request.method == "POST" else None
    is_other = sent is not None and "do" in sent
    form = QuestionsForm(None if is_other else sent, campaign=found)
    other = OtherQuestionForm(sent if is_other else None, campaign=found)
    if sent is not None and (revision := _save(request, found, form, other)):
        messages.success(request, f"Revision {revision.number} is saved. Raters have it before their next item.")
        return redirect("campaign_questions", slug=found.slug)
    before = read_key(request.GET.get("before", ""))
    rows, next_url = _told(found, before)
    context = {
        "campaign": found,
        "form": form,
        "other": other,
        "may_ask_otherwise": not why_not_otherwise(found),
        "newest": found.question_revisions.first(),
        "now": in_words(specs_of(found)),
        "revisions": rows,
        "next_url": next_url,
        "is_older": before is not None,
        "may_write": may_curate(request.user),
        "is_closed": found.state == CampaignState.CLOSED,
    }
    return render(request, "curation/campaign_questions.html", context)


def _save(
    request: HttpRequest, campaign: Campaign, form: QuestionsForm, other: OtherQuestionForm
) -> QuestionRevision | None:
    """The revision that was asked for; None with the errors on the form or in a message."""
    assert isinstance(request.user, User)
    gone = request.POST.get("do", "")
    if gone and (why := why_not_otherwise(campaign)):
        messages.error(request, why)
        return None
    if gone.startswith(LEAVE_OUT):
        based_on = request.POST.get("other-based_on", "")
        try:
            number = int(based_on) if based_on.isdecimal() and len(based_on) < 10 else 0
            return leave_out(campaign, gone.removeprefix(LEAVE_OUT), based_on=number, by=request.user)
        except QuestionsRefused as refused:
            messages.error(request, refused.args[0])
            return None
    asked = other if gone else form
    return asked.save(request.user) if asked.is_valid() else None


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
