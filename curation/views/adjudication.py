"""Pages on which curators decide what judges could not: one item after the other, and what was reported broken."""

import uuid
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Role, User
from accounts.policies import policy
from curation.adjudications import (
    AdjudicationRefused,
    adjudicate,
    explained_skips,
    flagged_items,
    latest_of,
    order_for,
    split_items,
    standing_flags,
    undo_adjudication,
    waiting_in,
)
from curation.campaigns import is_blind_for
from curation.exclusions import tell_excluded
from curation.models import (
    Adjudication,
    AdjudicationAction,
    Campaign,
    CampaignKind,
    Item,
    ItemSample,
    Judgment,
    JudgmentAction,
    Question,
)
from curation.rules import SIDES
from curation.sets import halves
from curation.verdicts import preferred
from curation.views.campaigns import may_curate, read_key

PAGE = 60
SKIPS = 100
KEY_NAMES = {"ArrowLeft": "←", "ArrowRight": "→", "ArrowUp": "↑", "ArrowDown": "↓", " ": "Space"}


@policy(read=[Role.CURATOR], write=[Role.CURATOR])
@require_http_methods(["GET", "HEAD", "POST"])
def campaign_adjudicate(request: HttpRequest, slug: str) -> HttpResponse:
    """Decide about the next item that judges are split about; `?item=` chooses one, `?after=` passes over the earlier ones."""
    assert isinstance(request.user, User)
    campaign = get_object_or_404(Campaign.objects.visible_to(request.user), slug=slug)
    if request.method == "POST":
        return _decide(request, campaign, request.user)
    context: dict[str, Any] = {"campaign": campaign, "is_blind": is_blind_for(campaign, request.user)}
    if not context["is_blind"]:
        item = _wanted(request, campaign)
        context |= {
            "waiting": waiting_in([campaign])[campaign.pk],
            "may_write": may_curate(request.user),
            "last": _last_of(campaign, request.user),
        }
        if item is not None:
            context |= _bench(item, request.user)
    return render(request, "curation/adjudicate.html", context)


@policy(write=[Role.CURATOR])
@require_POST
def campaign_adjudicate_undo(request: HttpRequest, slug: str) -> HttpResponse:
    """Take a decision back, and look at its item again."""
    assert isinstance(request.user, User)
    campaign = get_object_or_404(Campaign.objects.visible_to(request.user), slug=slug)
    row = get_object_or_404(
        Adjudication.objects.select_related("item"), pk=_uuid(request.POST.get("adjudication")), item__campaign=campaign
    )
    try:
        undo_adjudication(row, by=request.user)
        messages.info(request, "The decision was taken back.")
    except AdjudicationRefused as refused:
        messages.error(request, refused.args[0])
    return redirect(_address(campaign, item=row.item_id))


@policy(read=[Role.CURATOR])
@require_safe
def campaign_flagged(request: HttpRequest, slug: str) -> HttpResponse:
    """What raters reported as broken and nobody decided yet, and why they skipped items, in their own words."""
    assert isinstance(request.user, User)
    campaign = get_object_or_404(Campaign.objects.visible_to(request.user), slug=slug)
    blind = is_blind_for(campaign, request.user)
    items = Item.objects.none() if blind else flagged_items(campaign)
    after = read_key(request.GET.get("after", ""))
    if after is not None:
        items = items.filter(position__gt=after)
    samples = Prefetch("item_samples", ItemSample.objects.select_related("sample").order_by("slot"))
    flags = Prefetch("judgments", standing_flags().select_related("rater").order_by("received_at"), to_attr="flags")
    rows = list(items.select_related("prompt").prefetch_related(samples, flags)[: PAGE + 1])
    shown = rows[:PAGE]
    skips = (
        [] if blind or after is not None else explained_skips(campaign).select_related("rater", "item__prompt")[:SKIPS]
    )
    context = {
        "campaign": campaign,
        "is_blind": blind,
        "skips": skips,
        "most_skips": SKIPS,
        "items": [(item, [row.sample for row in _in_order(item, order_for(item, request.user))]) for item in shown],
        "next_url": f"?after={shown[-1].position}" if len(rows) > PAGE else "",
        "first_url": reverse("campaign_flagged", args=[slug]) if after is not None else "",
    }
    return render(request, "curation/flagged.html", context)


def _wanted(request: HttpRequest, campaign: Campaign) -> Item | None:
    """The item that the address asks for, or the next that is split; past the end it begins anew."""
    chosen = read_key(request.GET.get("item", ""))
    if chosen is not None:
        return get_object_or_404(campaign.items.select_related("prompt", "campaign"), pk=chosen)
    waiting = split_items(campaign).select_related("prompt", "campaign")
    after = read_key(request.GET.get("after", ""))
    later = waiting.filter(position__gt=after).first() if after is not None and after < 2**31 else None
    return later or waiting.first()


def _bench(item: Item, user: User) -> dict[str, Any]:
    """Everything that a decision about the item needs."""
    order = order_for(item, user)
    latest = latest_of(item)
    questions = list(item.campaign.questions.all())
    samples = [row.sample for row in _in_order(item, order)]
    ends = Judgment.objects.filter(item=item, superseded_by__isnull=True).exclude(action=JudgmentAction.UNDO)
    said = list(ends.select_related("rater", "assignment"))
    tell_excluded(item.campaign, said)
    return {
        "item": item,
        "samples": samples,
        "sides": halves(samples) if item.campaign.kind == CampaignKind.SETS else None,
        "order": ",".join(map(str, order)),
        "questions": [
            (question, [(choice, _key_name(choice)) for choice in question.choices]) for question in questions
        ],
        "is_single": len(questions) == 1,
        "said": [(row, _words(row, questions, item, order)) for row in said],
        "seen": latest.pk if latest else "",
        "decided": latest if latest and latest.action == AdjudicationAction.DECIDE else None,
        "decided_words": _words(latest, questions, item, order) if latest else [],
        "verdict": item.verdicts.first(),
        "is_split": split_items(item.campaign).filter(pk=item.pk).exists(),
        "pass_url": _address(item.campaign, after=item.position),
    }


def _in_order(item: Item, order: list[int]) -> list[ItemSample]:
    by_slot = {row.slot: row for row in item.item_samples.select_related("sample")}
    return [by_slot[slot] for slot in order]


def _words(
    row: Judgment | Adjudication, questions: list[Question], item: Item, order: list[int]
) -> list[tuple[str, str]]:
    """(question, answer) as a person reads them; in a comparison by the sides of this page, which say nothing of what is new."""
    words = []
    for question in questions:
        value = row.answers.get(question.name)
        if value is None:
            continue
        if item.campaign.compares and (side := preferred(value, row.order)) in SIDES:
            value = "left" if preferred("left", order) == side else "right"
        labels = {choice["value"]: choice["label"] for choice in question.choices}
        words.append((question.text, labels.get(value, value)))
    return words


def _key_name(choice: dict[str, Any]) -> str:
    key = str(choice.get("key", ""))
    return KEY_NAMES.get(key, key.upper())


def _last_of(campaign: Campaign, user: User) -> Adjudication | None:
    """This person's newest decision here that stands."""
    mine = Adjudication.objects.standing().filter(by=user, item__campaign=campaign)
    return mine.select_related("item__prompt").order_by("-at").first()


def _decide(request: HttpRequest, campaign: Campaign, user: User) -> HttpResponse:
    item = get_object_or_404(campaign.items, pk=read_key(request.POST.get("item", "")))
    answers = {
        name.removeprefix("answer-"): str(value)
        for name, value in request.POST.items()
        if name.startswith("answer-") and value
    }
    try:
        adjudicate(
            item,
            by=user,
            answers=answers,
            order=_order(request.POST.get("order", "")),
            reason=request.POST.get("reason", "").replace("\0", ""),
            seen=_uuid(request.POST.get("seen")),
        )
    except AdjudicationRefused as refused:
        messages.error(request, refused.args[0])
        return redirect(_address(campaign, item=item.pk))
    if request.POST.get("from") == "flagged":
        return redirect("campaign_flagged", campaign.slug)
    return redirect(_address(campaign, after=item.position))


def _order(text: str) -> list[int] | None:
    places = text.split(",")
    return [int(place) for place in places] if all(place.isdecimal() and len(place) < 4 for place in places) else None


def _uuid(text: str | None) -> uuid.UUID | None:
    try:
        return uuid.UUID(text) if text else None
    except ValueError:
        return None


def _address(campaign: Campaign, **query: int) -> str:
    return f"{reverse('campaign_adjudicate', args=[campaign.slug])}?{urlencode(query)}"
