"""Pages of gold items: which they are, what is known of them, and how they are made."""

from typing import Any

from django.contrib import messages
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.defaultfilters import pluralize
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Role, User
from accounts.policies import policy
from curation import tallies
from curation.accuracy import accuracy_by_item
from curation.adjudications import standing_flags
from curation.gold import GoldRefused, active_gold, is_hidden_from, known_choices, retire_gold
from curation.gold_forms import CopyGoldForm, KnownAnswersForm, QualityForm
from curation.models import Campaign, GoldItem, ItemSample, TallyKind
from curation.sets import side_of
from curation.statistics import Share
from curation.views.campaigns import TEAM, may_curate, read_key

SHOWN, OFFERED = 200, 24
SIDES = ("Baseline", "Candidate")


@policy(read=TEAM)
@require_safe
def campaign_gold(request: HttpRequest, slug: str) -> HttpResponse:
    """The gold items of a campaign with their known answers and how often raters give them, and what could become gold."""
    campaign = _visible(request, slug)
    user = _user(request)
    context: dict[str, Any] = {
        "campaign": campaign,
        "is_hidden": is_hidden_from(campaign, user),
        "may_write": may_curate(user),
        "quality_form": QualityForm(campaign=campaign),
        "copy_form": CopyGoldForm(campaign=campaign, user=user),
    }
    if not context["is_hidden"]:
        context |= _gold_of(campaign) | _offered(request, campaign)
    return render(request, "curation/campaign_gold.html", context)


def _gold_of(campaign: Campaign) -> dict[str, Any]:
    labels = _labels(campaign)
    reported = set(standing_flags().filter(item__campaign=campaign, item__is_gold=True).values_list("item", flat=True))
    rows = _with_samples(active_gold(campaign)).select_related("gold__created_by", "gold__source__campaign")
    shown = list(rows.order_by("-gold__created_at", "-pk")[:SHOWN])
    accuracy = accuracy_by_item(campaign, shown)
    return {
        "given": Share(
            tallies.total([campaign.pk], TallyKind.MEASURED),
            tallies.total([campaign.pk], TallyKind.ENDED, "answer"),
        ),
        "gold_count": rows.count(),
        "gold": [
            {
                "item": item,
                "known": [labels[name, value] for name, value in item.gold.answers.items() if (name, value) in labels],
                "accuracy": accuracy.get(item.pk),
                "is_reported": item.pk in reported,
            }
            for item in shown
        ],
    }


def _offered(request: HttpRequest, campaign: Campaign) -> dict[str, Any]:
    """A page of the campaign's own items, which may become gold."""
    after = read_key(request.GET.get("after", ""))
    rows = _with_samples(campaign.items.to_decide()).prefetch_related("verdicts").order_by("position")
    if after is not None:
        rows = rows.filter(position__gt=min(after, 2**31 - 1))
    found = list(rows[: OFFERED + 1])
    shown = found[:OFFERED]
    return {
        "offered": shown,
        "next_url": f"?after={shown[-1].position}#offered-head" if len(found) > OFFERED else "",
        "first_url": "?#offered-head" if after is not None else "",
    }


@policy(read=[Role.CURATOR], write=[Role.CURATOR])
@require_http_methods(["GET", "HEAD", "POST"])
def gold_item(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Say what the known answers of an item are; that makes it gold."""
    campaign = _visible(request, slug)
    if is_hidden_from(campaign, _user(request)):
        return redirect("campaign_gold", slug)
    item = get_object_or_404(_with_samples(campaign.items.all()), pk=pk)
    item.campaign = campaign
    form = KnownAnswersForm(request.POST or None, item=item)
    if request.method == "POST" and form.is_valid() and form.save(_user(request)):
        messages.success(request, "The item is gold with these answers.")
        return redirect("campaign_gold", slug)
    rows = item.item_samples.all()
    samples = [(SIDES[side_of(row.slot, len(rows))] if campaign.compares else "", row.sample) for row in rows]
    context = {
        "campaign": campaign,
        "item": item,
        "samples": samples,
        "form": form,
        "verdict": item.verdicts.first(),
        "may_write": may_curate(_user(request)),
    }
    return render(request, "curation/gold_item.html", context)


@policy(write=[Role.CURATOR])
@require_POST
def gold_retire(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Take an item out of the gold."""
    campaign = _visible(request, slug)
    gold = get_object_or_404(GoldItem.objects.filter(item__campaign=campaign), item=pk)
    if retire_gold(gold, by=_user(request)):
        messages.success(request, "The item is gold no more.")
    else:
        messages.info(request, "The item had been taken out already.")
    return redirect("campaign_gold", slug)


@policy(write=[Role.CURATOR])
@require_POST
def gold_copy(request: HttpRequest, slug: str) -> HttpResponse:
    """Take gold from a closed campaign whose raters were of one mind."""
    campaign, user = _visible(request, slug), _user(request)
    form = CopyGoldForm(request.POST, campaign=campaign, user=user)
    if not form.is_valid():
        messages.error(request, "Choose a closed campaign that asks the same, and a number of items from 1 to 200.")
        return redirect("campaign_gold", slug)
    try:
        count = form.save(user)
    except GoldRefused as refused:
        messages.error(request, refused.args[0])
        return redirect("campaign_gold", slug)
    if count:
        messages.success(request, f"{count} item{pluralize(count)} became gold.")
    else:
        messages.info(request, "No item there was answered alike by two raters or more and is new here.")
    return redirect("campaign_gold", slug)


@policy(write=[Role.CURATOR])
@require_POST
def campaign_quality(request: HttpRequest, slug: str) -> HttpResponse:
    """Choose how raters are measured."""
    campaign = _visible(request, slug)
    form = QualityForm(request.POST, campaign=campaign)
    if form.is_valid():
        try:
            form.save(_user(request))
        except GoldRefused as refused:
            messages.error(request, f"Nothing was changed. {refused.args[0]}")
        else:
            messages.success(request, "How raters are measured was changed.")
    else:
        problems = [f"{form.fields[name].label}: {error}" for name, errors in form.errors.items() for error in errors]
        messages.error(request, f"Nothing was changed. {' '.join(problems)}")
    return redirect("campaign_gold", slug)


def _visible(request: HttpRequest, slug: str) -> Campaign:
    found: Campaign = get_object_or_404(Campaign.objects.visible_to(_user(request)), slug=slug)
    return found


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _with_samples(items: Any) -> Any:
    samples = ItemSample.objects.select_related("sample").order_by("slot")
    return items.select_related("prompt").prefetch_related(Prefetch("item_samples", samples))


def _labels(campaign: Campaign) -> dict[tuple[str, str], str]:
    """(question, value) -> the answer in words."""
    return {
        (question.name, value): f"{question.text} {label}"
        for question in campaign.questions.all()
        for value, label in known_choices(campaign, question)
    }
