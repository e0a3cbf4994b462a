"""The guidelines of a campaign: how they changed, and changing them."""

import random
from typing import Any, NamedTuple

from django.contrib import messages
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from accounts.models import Role, User
from accounts.policies import policy
from curation.example_rounds import rounds_by_revision
from curation.examples import ExampleChange, example_changes, right_answers, samples_of
from curation.gold import is_hidden_from
from curation.guideline_forms import BaseExamples, GuidelinesForm, examples_form, examples_with, read_numbers
from curation.guidelines import Part, changes
from curation.models import (
    Campaign,
    CampaignState,
    ExampleRound,
    GuidelineExample,
    GuidelineRevision,
    ItemSample,
    Question,
)
from curation.views.campaigns import TEAM, may_curate, read_key
from generation.models import Sample

PAGE = 10
OFFERED = 24
# Who did would see which items are left, and so which are gold.
CANNOT_CHOOSE = "You rate in this campaign, so you cannot choose its examples."


class Passing(NamedTuple):
    """How a rater did with the examples that a revision asks first: the attempts so far, the last of them, and whether they
    are still to pass."""

    rater: User
    attempts: int
    last: ExampleRound | None
    is_waited_for: bool


class Told(NamedTuple):
    """A revision and what it changed; of the first, `examples` are those that it has. `passing` is there of one that asks."""

    revision: GuidelineRevision
    parts: list[Part]
    examples: list[tuple[ExampleChange, list[str]]]
    passing: list[Passing]


@policy(read=TEAM, write=[Role.CURATOR])
@require_http_methods(["GET", "HEAD", "POST"])
def campaign_guidelines(request: HttpRequest, slug: str) -> HttpResponse:
    """Every revision of the guidelines and their examples with what it changed, and a form that adds one; `?before=` for
    older ones."""
    assert isinstance(request.user, User)
    found = get_object_or_404(Campaign.objects.visible_to(request.user), slug=slug)
    newest = found.revisions.first()
    hidden = is_hidden_from(found, request.user)
    examples: BaseExamples
    if request.method == "POST" and "do" in request.POST:
        form, examples = _go_on_writing(request, found, hidden=hidden)
    elif request.method == "POST":
        form, sent = GuidelinesForm(request.POST, campaign=found), _sent_examples(request, found)
        are_valid = form.is_valid() and (sent is None or sent.is_valid())
        if are_valid and sent and hidden and _are_new(sent, newest):
            form.add_error(None, CANNOT_CHOOSE)
            are_valid = False
        if are_valid and (revision := form.save(request.user, sent.chosen() if sent else None)):
            first = ", and answer its examples before they get more" if revision.asks else ""
            messages.success(
                request, f"Revision {revision.number} is saved. Raters are told before their next item{first}."
            )
            return redirect("campaign_guidelines", slug=found.slug)
        newest = found.revisions.first()
        examples = sent or examples_form(found, newest)
    else:
        form, examples = GuidelinesForm(campaign=found), examples_form(found, newest)
    before = read_key(request.GET.get("before", ""))
    rows, next_url = _told(found, before)
    context = {
        "campaign": found,
        "form": form,
        "examples": examples,
        "newest": newest,
        "revisions": rows,
        "next_url": next_url,
        "is_older": before is not None,
        "may_write": may_curate(request.user),
        "is_closed": found.state == CampaignState.CLOSED,
        "is_hidden": hidden,
    }
    if context["may_write"] and not hidden and not context["is_closed"] and before is None and found.takes_examples:
        context |= _offered(request, found)
    return render(request, "curation/campaign_guidelines.html", context)


def _are_new(examples: BaseExamples, newest: GuidelineRevision | None) -> bool:
    known = {samples_of(row) for row in newest.examples.all()} if newest else set()
    return any(example.samples not in known for example in examples.chosen())


def _sent_examples(request: HttpRequest, campaign: Campaign) -> BaseExamples | None:
    """The examples of the form; None where it was sent without any, which leaves them as they are."""
    if "examples-TOTAL_FORMS" not in request.POST:
        return None
    return examples_form(campaign, None, request.POST)


def _go_on_writing(request: HttpRequest, campaign: Campaign, *, hidden: bool) -> tuple[GuidelinesForm, BaseExamples]:
    """The form with all that was typed so far, and with the stickers that were chosen."""
    added: list[str] = []
    if request.POST["do"] == "add" and hidden:
        messages.error(request, CANNOT_CHOOSE)
    elif request.POST["do"] == "add":
        added = _chosen(request, campaign)
        if not added:
            messages.info(request, "No sticker was chosen, and no number of a sample that there is.")
    typed = {name: request.POST.get(name, "") for name in ("text", "change", "asks_percent")}
    typed["asks"] = "on" if request.POST.get("asks") else ""
    return GuidelinesForm(campaign=campaign, initial=typed), examples_with(campaign, request.POST, added)


def _chosen(request: HttpRequest, campaign: Campaign) -> list[str]:
    """What was chosen, each as 12 or 12+13. The sides of a pair are drawn, so that they say nothing."""
    assert isinstance(request.user, User)
    if campaign.compares:
        wanted = read_numbers(" ".join(request.POST.getlist("item")))
        pairs = campaign.items.to_decide().filter(pk__in=wanted).prefetch_related("item_samples").order_by("position")
        sides = [[str(row.sample_id) for row in item.item_samples.all()] for item in pairs]
        return ["+".join(random.sample(pair, len(pair))) for pair in sides]
    numbers = read_numbers(" ".join([*request.POST.getlist("sample"), request.POST.get("numbers", "")]))
    known = set(Sample.objects.visible_to(request.user).filter(pk__in=numbers).values_list("pk", flat=True))
    return [str(pk) for pk in dict.fromkeys(map(int, numbers)) if pk in known]


def _offered(request: HttpRequest, campaign: Campaign) -> dict[str, Any]:
    """Items of the campaign that may become examples, a page after those that were offered before."""
    after = read_key(request.POST.get("after", "")) if request.POST.get("do") == "more" else None
    samples = ItemSample.objects.select_related("sample").order_by("slot")
    rows = campaign.items.to_decide().select_related("prompt").order_by("position")
    if after is not None:
        rows = rows.filter(position__gt=min(after, 2**31 - 1))
    found = list(rows.prefetch_related(Prefetch("item_samples", samples))[: OFFERED + 1])
    return {
        "offered": found[:OFFERED],
        "after": found[OFFERED - 1].position if len(found) > OFFERED else "",
        "is_further": after is not None,
    }


def _told(campaign: Campaign, before: int | None) -> tuple[list[Told], str]:
    """The newest revisions below that number with what each changed, and the address of the ones before them."""
    shown = GuidelineExample.objects.select_related("sample__prompt", "beside").order_by("position")
    revisions = campaign.revisions.select_related("by").prefetch_related(Prefetch("examples", shown))
    if before is not None:
        revisions = revisions.filter(number__lt=before)
    found = list(revisions[: PAGE + 1])
    questions = list(campaign.questions.all())
    older = {row.number + 1: row for row in found}
    passing = _passing(campaign, [row.number for row in found[:PAGE] if row.asks])
    told = [_tell(row, older.get(row.number), questions, passing.get(row.number, [])) for row in found[:PAGE]]
    return told, f"?before={found[PAGE - 1].number}" if len(found) > PAGE else ""


def _passing(campaign: Campaign, numbers: list[int]) -> dict[int, list[Passing]]:
    """Number of a revision that asks -> its raters: those of now, and whoever tried."""
    if not numbers:
        return {}
    rounds = rounds_by_revision(campaign, numbers)
    places = list(campaign.memberships.select_related("rater").order_by("rater__email"))
    return {
        number: [
            Passing(place.rater, len(tried), tried[-1] if tried else None, place.examples_passed < number)
            for place in places
            if (tried := rounds.get(number, {}).get(place.rater_id, [])) or place.removed_at is None
        ]
        for number in numbers
    }


def _tell(
    row: GuidelineRevision, before: GuidelineRevision | None, questions: list[Question], passing: list[Passing]
) -> Told:
    parts = changes(before.text, row.text) if before and before.text != row.text else []
    changed = example_changes(before.examples.all() if before else [], row.examples.all())
    return Told(row, parts, [(each, right_answers(each.example, questions)) for each in changed], passing)
