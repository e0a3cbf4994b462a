"""Pages of campaigns."""

from typing import Any

from django.contrib import messages
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.defaultfilters import pluralize
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Role, User
from accounts.policies import policy
from curation import campaigns as verbs
from curation import tallies
from curation.accuracy import OF_ACCURACY, accuracy_by_rater
from curation.adjudications import split_items, waiting_in
from curation.agreement import agreement_by_bucket
from curation.campaign_forms import CampaignForm, OrderForm, RatersForm, ReasonsForm, RuleForm
from curation.datasets import SELECTABLE
from curation.examples import newest_examples, right_answers
from curation.fails import marked_words, reason_tables
from curation.guidelines import guidelines_html
from curation.models import (
    Campaign,
    CampaignEvent,
    CampaignKind,
    CampaignState,
    ItemSample,
    Mark,
    Outcome,
    Question,
    TallyKind,
)
from curation.order import order_of
from curation.pass_rates import pass_rates
from curation.probes import OF_CONSISTENCY, consistency_by_rater
from curation.rubrics import GUIDELINES
from curation.rules import read_rule
from curation.scores import why_no_scores
from curation.standing import event_words, in_words
from curation.statistics import (
    OF_PROGRESS,
    OF_RATERS,
    answers_by_revision,
    judgments_curve,
    outcomes_of,
    progress_of,
    rater_rows,
    recent_rate,
)
from generation.models import GenerationBatch

TEAM = [Role.CURATOR, Role.OPERATOR]
PAGE = 25
SPLIT_SHOWN = 60
# Of many raters the page shows so many, the paused before the others, until all are asked for.
RATERS_SHOWN = 20
# What a dataset takes.
SELECTED = (Outcome.ACCEPTED, Outcome.BASELINE, Outcome.CANDIDATE)
# What is counted beside the rows and shown on a campaign's page.
SHOWN = (
    *OF_PROGRESS,
    *OF_RATERS,
    *OF_ACCURACY,
    *OF_CONSISTENCY,
    TallyKind.SPLIT,
    TallyKind.FLAGGED,
    TallyKind.REASON,
    TallyKind.REVISION,
    TallyKind.WORDING,
)
# The same of what the page asks for again, by its own name.
OF_STANDING = (*OF_PROGRESS, TallyKind.SPLIT, TallyKind.FLAGGED)
PARTS = {
    "standing": OF_STANDING,
    "raters": (*OF_STANDING, *OF_RATERS, *OF_ACCURACY, *OF_CONSISTENCY),
    "measures": OF_STANDING,
}


def may_curate(user: User) -> bool:
    """Whether a page shows this person the buttons that change something."""
    return user.is_superuser or user.has_role(Role.CURATOR)


def read_key(text: str) -> int | None:
    """A row's number from an address; None where it is none."""
    return int(text) if text.isdecimal() and len(text) < 19 else None


@policy(read=TEAM)
@require_safe
def campaigns(request: HttpRequest) -> HttpResponse:
    """All campaigns, the newest first, with how far they are."""
    assert isinstance(request.user, User)
    visible = Campaign.objects.visible_to(request.user).select_related("created_by")
    before = read_key(request.GET.get("before", ""))
    if before is not None:
        visible = visible.filter(pk__lt=before)
    rows = list(visible.order_by("-pk")[: PAGE + 1])
    shown = rows[:PAGE]
    progress = progress_of(shown)
    context = {
        "campaigns": [(campaign, progress[campaign.pk]) for campaign in shown],
        "next_url": f"?before={shown[-1].pk}" if len(rows) > PAGE else "",
        "first_url": reverse("campaigns") if before is not None else "",
        "may_write": may_curate(request.user),
        "has_samples": bool(shown) or GenerationBatch.objects.filter(samples__isnull=False).exists(),
    }
    return render(request, "curation/campaigns.html", context)


@policy(read=[Role.CURATOR], write=[Role.CURATOR])
@require_http_methods(["GET", "HEAD", "POST"])
def campaign_new(request: HttpRequest) -> HttpResponse:
    """Set up a campaign; `?batch=` chooses what is judged."""
    assert isinstance(request.user, User)
    if request.method == "POST":
        form, reasons = CampaignForm(request.POST, user=request.user), ReasonsForm(request.POST)
        are_valid = reasons.is_valid() and form.is_valid()
        if are_valid and (campaign := form.create(request.user, reasons.rubric(form.cleaned_data["kind"]))):
            items = campaign.items.count()
            messages.success(
                request, f"“{campaign}” is set up with {items} item{pluralize(items)}{_estimate(campaign, items)}."
            )
            return redirect(campaign)
    else:
        batch = read_key(request.GET.get("batch", ""))
        chosen = (
            GenerationBatch.objects.visible_to(request.user).filter(pk=batch).first() if batch is not None else None
        )
        initial: dict[str, Any] = {"batches": [chosen.pk], "name": chosen.name} if chosen else {}
        form, reasons = CampaignForm(initial=initial, user=request.user), ReasonsForm()
    usual = [
        (CampaignKind(kind).label, guidelines_html(text)) for kind, text in GUIDELINES.items() if kind in SELECTABLE
    ]
    has_batches = form.fields["batches"].queryset.exists()  # type: ignore[attr-defined]
    return render(
        request,
        "curation/campaign_new.html",
        {
            "form": form,
            "reasons": reasons,
            "has_batches": has_batches,
            "usual": usual,
            "may_write": may_curate(request.user),
        },
    )


@policy(read=TEAM)
@require_safe
def campaign(request: HttpRequest, slug: str) -> HttpResponse:
    """One campaign: how it stands, who judges, what they disagree about. Of what a page asks for again, that alone."""
    assert isinstance(request.user, User)
    visible = Campaign.objects.visible_to(request.user).select_related("created_by", "recount_job")
    found = get_object_or_404(visible.prefetch_related("questions"), slug=slug)
    part = request.htmx.target if request.htmx and request.htmx.target in PARTS else ""  # type: ignore[attr-defined]
    with tallies.at_one_moment([found.pk], *PARTS.get(part, SHOWN)):
        context = _standing(found, request.user)
        if part in ("", "raters"):
            context |= _raters(found, is_blind=context["is_blind"], every=request.GET.get("raters") == "all")
        if not part:
            context |= _shown(found, request.user, context)
        elif part == "measures" and not context["is_blind"]:
            questions = list(found.questions.all())
            context |= {"questions": questions} | _measures(found, questions)
    return render(request, f"curation/_{part}.html" if part else "curation/campaign.html", context)


def _standing(found: Campaign, user: User) -> dict[str, Any]:
    """How far the campaign is, as this person may know it."""
    progress = progress_of([found])[found.pk]
    rate = recent_rate(found) if found.state == CampaignState.OPEN else 0.0
    is_blind = verbs.is_blind_for(found, user)
    outcomes = {} if is_blind else outcomes_of(found)
    return {
        "campaign": found,
        "progress": progress,
        "pace": f"{rate:.1f} judgments/min" if rate else "",
        "time_left": _time_left(progress.wanted - progress.judgments, rate),
        "is_blind": is_blind,
        "waiting": None if is_blind else waiting_in([found])[found.pk],
        "may_write": may_curate(user),
        "outcomes": [(Outcome(outcome), count) for outcome, count in sorted(outcomes.items()) if count],
        "selected": sum(outcomes.get(outcome, 0) for outcome in SELECTED),
    }


def _raters(found: Campaign, *, is_blind: bool, every: bool) -> dict[str, Any]:
    """Who judges, those with a standing before the others: every one, or the first."""
    raters = rater_rows(found)
    accuracy = accuracy_by_rater(found)
    consistency = {} if is_blind else consistency_by_rater(found)
    for row in raters:
        place = row["place"]
        row |= {"accuracy": accuracy.get(place.rater_id), "state": place.state, "standing": in_words(place)}
        row["excluded"] = place.excluded
        row["consistency"] = consistency.get(place.rater_id)
    raters.sort(key=lambda row: (not row["standing"], row["is_removed"]))
    rating = [row["place"].rater_id for row in raters if not row["is_removed"]]
    return {
        "raters": raters if every else raters[:RATERS_SHOWN],
        "all_raters": len(raters),
        "rating": rating,
        "has_excluded": any(row["excluded"] for row in raters),
        "has_accuracy": bool(accuracy),
        "has_consistency": bool(consistency),
        "too_few_raters": _too_few(found, len(rating)),
    }


def _shown(found: Campaign, user: User, known: dict[str, Any]) -> dict[str, Any]:
    """What the page of a campaign says to this person besides how it stands and who judges, which is `known`."""
    questions = list(found.questions.all())
    context: dict[str, Any] = {
        "raters_form": RatersForm(campaign=found, initial={"raters": known["rating"]}),
        "rule": read_rule(found.rule),
        "rule_words": read_rule(found.rule).in_words(found.compares),
        "rule_form": RuleForm(campaign=found),
        "order_words": order_of(found).in_words,
        "order_form": OrderForm(campaign=found),
        "takes_scores": not why_no_scores(found),
        "guidelines": guidelines_html(found.guidelines),
        "examples": [(row, right_answers(row, questions)) for row in newest_examples(found)],
        "by_revision": answers_by_revision(found),
        "questions": questions,
        "by_wording": answers_by_revision(found, TallyKind.WORDING),
        "events": _events(found),
        "may_rate": Campaign.objects.rateable_by(user).filter(pk=found.pk).exists(),
        "is_selectable": found.kind in SELECTABLE
        or (found.kind == CampaignKind.COMPARE and found.state == CampaignState.CLOSED),
        "moves": _moves(found),
    }
    return context if known["is_blind"] else context | _results(found, bool(known["waiting"].split))


def _events(campaign: Campaign) -> list[tuple[CampaignEvent, str]]:
    """The newest events, with what happened in words."""
    events = list(campaign.events.select_related("by").order_by("-pk")[:20])
    people = User.objects.in_bulk([event.detail["rater"] for event in events if "rater" in event.detail])
    return [
        (event, event_words(event, people.get(event.detail.get("rater"))) or f"{_event_words(event)} by {event.by}")
        for event in events
    ]


def _event_words(event: CampaignEvent) -> str:
    """What happened, without who did it."""
    if event.kind == "raters":
        return f"Raters changed: {len(event.detail['joined'])} joined, {len(event.detail['left'])} left"
    if event.kind == "gold" and (marked := len(event.detail.get("marked", []))):
        return f"Gold: {marked} item{pluralize(marked)} made gold"
    if event.kind == "gold":
        retired = len(event.detail["retired"])
        return f"Gold: {retired} item{pluralize(retired)} taken out"
    if event.kind == "gold rate":
        return f"Gold rate set to {event.detail['percent']}%"
    if event.kind == "rule":
        return f"Rule changed from {event.detail['from']} to {event.detail['to']}"
    if event.kind == "probe rate":
        return f"Rate of items that are asked again set to {event.detail['percent']}%"
    if event.kind == "order":
        return f"Order changed from {event.detail['from']} to {event.detail['to']}"
    if event.kind == "scores":
        return f"Scores taken for {event.detail['items']:,} items: {event.detail['name']}"
    if event.kind == "guidelines":
        return f"Guidelines changed to revision {event.detail['revision']}"
    if event.kind == "questions":
        return f"Questions changed to revision {event.detail['revision']}"
    if event.kind == "recounted":
        return "Verdicts counted anew"
    return str(event.kind).capitalize()


def _estimate(campaign: Campaign, items: int) -> str:
    """How many judgments that will be, where it depends on what raters say."""
    if campaign.most == campaign.overlap:
        return ""
    return f", for between {items * campaign.overlap:,} and {items * campaign.most:,} judgments"


def _too_few(campaign: Campaign, raters: int) -> str:
    """A sentence where so few people cannot give every item its judgments, which all come from different people."""
    if campaign.state == CampaignState.CLOSED or raters >= campaign.most or not raters:
        return ""
    if campaign.most > campaign.overlap:
        return f"Up to {campaign.most} judgments of an item come from as many people; {raters} can rate here. Choose more raters."
    return f"{campaign.overlap} judgments of each item come from as many people; {raters} can rate here. Choose more raters."


def _time_left(judgments: int, rate: float) -> str:
    """How long these still take at so many a minute; empty where nobody can say."""
    if not rate or not judgments:
        return ""
    minutes = judgments / rate
    if minutes < 1:
        return "less than a minute"
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.0f} h"


def _results(campaign: Campaign, has_split: bool) -> dict[str, Any]:
    questions = list(campaign.questions.all())
    samples = Prefetch("item_samples", ItemSample.objects.select_related("sample").order_by("slot"))
    split = split_items(campaign).select_related("prompt").prefetch_related(samples)[:SPLIT_SHOWN]
    return {
        **_measures(campaign, questions),
        "reason_tables": reason_tables(campaign, questions),
        "marked_words": marked_words(campaign) if any(row.marks == Mark.WORDS for row in questions) else [],
        "split": split if has_split else [],
        "datasets": campaign.datasets.all(),
    }


def _measures(campaign: Campaign, questions: list[Question]) -> dict[str, Any]:
    """What the judgments that are in by now say."""
    passable, rates = pass_rates(campaign, questions)
    return {
        "as_of": timezone.now(),
        "passable": passable,
        "rates": rates,
        "agreement": agreement_by_bucket(campaign, questions) if campaign.most > 1 else [],
    }


def _moves(campaign: Campaign) -> list[tuple[str, str, str]]:
    """(URL name, label, icon) of what may be done with the campaign now, the most likely first."""
    opens = ("campaign_open", "Open the campaign" if campaign.state == CampaignState.DRAFT else "Open it again", "play")
    pauses = ("campaign_pause", "Pause", "pause")
    closes = ("campaign_close", "Close", "square")
    return {
        CampaignState.DRAFT: [opens, closes],
        CampaignState.OPEN: [pauses, closes],
        CampaignState.PAUSED: [opens, closes],
        CampaignState.CLOSED: [opens],
    }[CampaignState(campaign.state)]


@policy(read=TEAM)
@require_safe
def campaign_curve(request: HttpRequest, slug: str) -> JsonResponse:
    """Judgments over time, for the curve."""
    assert isinstance(request.user, User)
    found = get_object_or_404(Campaign.objects.visible_to(request.user), slug=slug)
    return JsonResponse(judgments_curve(found))


def _move(request: HttpRequest, slug: str, verb: Any, done: str) -> HttpResponse:
    assert isinstance(request.user, User)
    found = get_object_or_404(Campaign.objects.visible_to(request.user), slug=slug)
    try:
        moved = verb(found, by=request.user)
    except verbs.CampaignRefused as refused:
        messages.error(request, refused.args[0])
        return redirect(found)
    if moved:
        messages.success(request, f"“{found}” is {done}.")
    else:
        messages.info(request, f"“{found}” had changed meanwhile; nothing was done.")
    return redirect(found)


@policy(write=[Role.CURATOR])
@require_POST
def campaign_open(request: HttpRequest, slug: str) -> HttpResponse:
    """Hand out items from now on."""
    return _move(request, slug, verbs.open_campaign, "open")


@policy(write=[Role.CURATOR])
@require_POST
def campaign_pause(request: HttpRequest, slug: str) -> HttpResponse:
    """Hand out nothing for now."""
    return _move(request, slug, verbs.pause_campaign, "paused")


@policy(write=[Role.CURATOR])
@require_POST
def campaign_close(request: HttpRequest, slug: str) -> HttpResponse:
    """Hand out nothing more."""
    return _move(request, slug, verbs.close_campaign, "closed")


@policy(write=[Role.CURATOR])
@require_POST
def campaign_raters(request: HttpRequest, slug: str) -> HttpResponse:
    """Choose who rates."""
    assert isinstance(request.user, User)
    found = get_object_or_404(Campaign.objects.visible_to(request.user), slug=slug)
    form = RatersForm(request.POST, campaign=found)
    if form.is_valid():
        form.save(request.user)
        messages.success(request, "The raters were changed.")
    else:
        messages.error(request, "One of these people cannot rate any more. Look again, and choose anew.")
    return redirect(found)
