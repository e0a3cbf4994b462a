"""Pages of samples: the wall, and one sample with everything that is known of it."""

from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from accounts.models import User
from accounts.policies import policy
from curation.browsing import find_samples, marks_of
from curation.campaigns import is_blind_for
from curation.details import prompt_words
from curation.exclusions import tell_excluded
from curation.gold import is_hidden_from
from curation.models import Adjudication, CampaignKind, DatasetVersion, Item, ItemSample, Judgment, Outcome
from curation.picks import QUESTION, picked_slots
from curation.sample_forms import SampleFilterForm
from curation.sets import side_of
from curation.verdicts import preferred
from curation.views.campaigns import TEAM, read_key
from generation.models import Sample
from generation.views.members import may_write

PAGE = 96
CHIPS = [
    ("", "All"),
    (Outcome.ACCEPTED.value, "Accepted"),
    (Outcome.REJECTED.value, "Rejected"),
    (Outcome.SPLIT.value, "Split"),
    (Outcome.PENDING.value, "Not decided"),
]


@policy(read=TEAM)
@require_safe
def samples(request: HttpRequest) -> HttpResponse:
    """A wall of samples, by filters, the newest first."""
    assert isinstance(request.user, User)
    visible = Sample.objects.visible_to(request.user)
    # A form's own check would refuse the page for one bad value in an address; a bad value is left out instead.
    query = request.GET.copy()
    for name in [name for name in query if any("\0" in value for value in query.getlist(name))]:
        del query[name]
    form = SampleFilterForm(query, user=request.user)
    form.is_valid()
    filters = {name: value for name, value in form.cleaned_data.items() if value}
    found = find_samples(visible, filters)
    before = read_key(query.get("before", ""))
    if before is not None:
        found = found.filter(pk__lt=before)
    rows = list(found.select_related("prompt")[: PAGE + 1])
    shown = rows[:PAGE]
    marks = marks_of(shown, filters.get("campaign"))
    context = {
        "form": form,
        "samples": [(sample, marks.get(sample.pk, "")) for sample in shown],
        "chips": [
            (label, _address(query, verdict=value), filters.get("verdict", "") == value) for value, label in CHIPS
        ],
        "next_url": _address(query, before=shown[-1].pk) if len(rows) > PAGE else "",
        "first_url": _address(query) if before is not None else "",
        "is_filtered": bool(filters),
    }
    return render(request, "curation/samples.html", context)


def _address(query: Any, **changes: Any) -> str:
    """The address of this page with other filters, from its first page on."""
    changed = query.copy()
    changed.pop("before", None)
    for name, value in changes.items():
        changed.pop(name, None)
        if value != "":
            changed[name] = value
    return f"?{changed.urlencode()}" if changed else "?"


@policy(read=TEAM)
@require_safe
def sample(request: HttpRequest, pk: int) -> HttpResponse:
    """One sample: large, with how it was drawn, what people said of it, and where it is used."""
    assert isinstance(request.user, User)
    visible = Sample.objects.visible_to(request.user).select_related(
        "prompt__prompt_set", "batch__model_version", "batch__created_by"
    )
    found = get_object_or_404(visible, pk=pk)
    items = list(
        Item.objects.filter(item_samples__sample=found)
        .select_related("campaign", "prompt", "probe", "gold")
        .prefetch_related("verdicts", "item_samples")
        .order_by("campaign_id")
    )
    # Who rates there must not see what is asked again.
    told = [item for item in items if not hasattr(item, "probe") or not is_hidden_from(item.campaign, request.user)]
    judged = [_judged(item, found, request.user) for item in told]
    context = {
        "sample": found,
        "judged": judged,
        "points": _points(judged),
        "versions": DatasetVersion.objects.filter(Q(entries__sample=found) | Q(entries__rejected=found))
        .select_related("dataset")
        .distinct()
        .order_by("dataset__name", "number"),
        "siblings": Sample.objects.visible_to(request.user)
        .filter(batch=found.batch, prompt=found.prompt)
        .exclude(pk=found.pk)
        .order_by("index")[:11],
        "may_draw": may_write(request.user, *TEAM),
        "mark": marks_of([found]).get(found.pk, ""),
    }
    return render(request, "curation/sample.html", context)


def _judged(item: Item, sample: Sample, user: User) -> dict[str, Any]:
    """What one campaign says of the sample."""
    if is_blind_for(item.campaign, user):
        return {"campaign": item.campaign, "is_blind": True}
    shown = next(row for row in item.item_samples.all() if row.sample_id == sample.pk)
    rows = (
        Judgment.objects.filter(item=item)
        .select_related("rater", "superseded_by", "assignment", "guideline_revision", "question_revision")
        .order_by("received_at")
    )
    tell_excluded(item.campaign, rows)
    decisions = item.adjudications.select_related("by", "superseded_by").order_by("at")
    sides = ("baseline", "candidate")
    gold = getattr(item, "gold", None)
    # What was gold once and was taken out of it may have become an example; a copy of another campaign's stays what it was.
    was_gold = gold is not None and gold.retired_at is not None and gold.source_id is None
    is_example = item.is_gold and not hasattr(item, "probe") and (gold is None or was_gold)
    return {
        "campaign": item.campaign,
        "side": sides[side_of(shown.slot, len(item.item_samples.all()))] if item.campaign.compares else "",
        "verdict": next(iter(item.verdicts.all()), None),
        "picked": shown.picked,
        "score": None if is_hidden_from(item.campaign, user) else item.score,
        "is_probe": hasattr(item, "probe"),
        "is_gold": item.is_gold
        and hasattr(item, "gold")
        and not is_example
        and not is_hidden_from(item.campaign, user),
        "is_example": is_example,
        "judgments": [(row, _words(row, shown), _details(item, row), hasattr(row, "superseded_by")) for row in rows],
        "decisions": [(row, _words(row, shown), hasattr(row, "superseded_by")) for row in decisions],
    }


def _points(judged: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Where raters saw a fault, in percent of the picture's width and height; what was replaced or excluded does not count."""
    return [
        (100 * detail["point"][0], 100 * detail["point"][1])
        for part in judged
        for judgment, _, _, is_superseded in part.get("judgments", [])
        if not (is_superseded or judgment.excluded)
        for detail in judgment.details.values()
        if "point" in detail
    ]


def _details(item: Item, judgment: Judgment) -> list[str]:
    """Why questions were failed, as a person reads it."""
    said = []
    words = prompt_words(item.prompt)
    for detail in judgment.details.values():
        said += [reason.lower() for reason in detail.get("reasons", [])]
        said += [f"“{words[place]}” is wrong or missing" for place in detail.get("words", []) if place < len(words)]
        if "point" in detail:
            said.append("a place marked in the picture")
    return said


def _words(judgment: Judgment | Adjudication, shown: ItemSample) -> list[tuple[str, str]]:
    """(question, answer) as a person reads them; the sides of a comparison by what they were, a pick by what it says of this
    sample."""
    if QUESTION in judgment.answers and shown.item.campaign.kind == CampaignKind.PICK:
        is_picked = shown.slot in picked_slots(judgment.answers[QUESTION], judgment.order)
        return [(QUESTION, "picked" if is_picked else "not picked")]
    return [
        (name.replace("_", " "), preferred(value, judgment.order).replace("_", " "))
        for name, value in judgment.answers.items()
    ]
