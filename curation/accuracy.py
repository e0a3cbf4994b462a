"""Accuracy: how often a rater says what is known of gold items, by the judgments that stand."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from django.db.models import Count, F, QuerySet

from accounts.models import User
from accounts.rows import fetch
from curation import tallies
from curation.models import COMPARISONS, Campaign, CampaignState, Item, Judgment, TallyKind
from curation.rightness import ACTIVE, MEASURES
from curation.rightness import is_right as expression_is_right
from curation.statistics import Share
from curation.verdicts import preferred

# A rater hears of their accuracy in steps of so many gold items: news after each would say which item was gold.
STEP = 10
OF_ACCURACY = (TallyKind.MEASURED, TallyKind.RIGHT)
WITHIN = f"""
SELECT span.campaign, {expression_is_right("span.compares")}
FROM unnest(%s::bigint[], %s::bool[], %s::bigint[], %s::bigint[]) span (campaign, compares, first, last)
JOIN curation_judgment j ON j.rater_id = %s AND j.action = 'answer' AND j.supersedes_id IS NULL
 AND j.received_at >= to_timestamp(3600 * span.first) AND j.received_at < to_timestamp(3600 * (span.last + 1))
JOIN curation_item i ON i.id = j.item_id AND i.campaign_id = span.campaign AND i.is_gold
JOIN curation_golditem g ON g.item_id = i.id AND {ACTIVE} AND {MEASURES}
ORDER BY j.received_at, j.id
"""  # noqa: S608 (Of constants.)


def is_right(kind: str, known: Mapping[str, str], answers: Mapping[str, str], order: Sequence[int]) -> bool:
    """Whether every known answer was given."""
    given = {name: preferred(value, order) if kind in COMPARISONS else value for name, value in answers.items()}
    return all(given.get(name) == value for name, value in known.items())


def accuracy_by_rater(campaign: Campaign) -> dict[int, Share]:
    """Rater id -> how many gold items were answered right, of those answered."""
    counts: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for name, (n, _) in tallies.read([campaign.pk], *OF_ACCURACY).items():
        counts[name.rater_id][name.what] = n
    return {
        rater: Share(each.get(TallyKind.RIGHT, 0), each.get(TallyKind.MEASURED, 0)) for rater, each in counts.items()
    }


def accuracy_by_item(campaign: Campaign, items: Sequence[Item]) -> dict[int, Share]:
    """Item id -> how many raters answered it right, of those who did, for those of these gold items that anybody answered."""
    if not items:
        return {}
    # Many raters give few different answers: what is the same is counted by the database.
    order = ("order",) if campaign.kind in COMPARISONS else ()
    groups = (
        _on_gold(campaign)
        .filter(item__in=items)
        .order_by()
        .values_list("item", "item__gold__answers", "answers", *order)
    )
    counts: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
    for pk, known, answers, *shown, count in groups.annotate(count=Count("pk")):
        counts[pk][0] += count * is_right(campaign.kind, known, answers, *shown or [()])
        counts[pk][1] += count
    return {pk: Share(k, n) for pk, (k, n) in counts.items()}


def gold_record(campaign: Campaign, rater: User, since: datetime | None = None) -> list[bool]:
    """Whether this rater was right, for each gold item that they answered since then, the newest last."""
    rows = _on_gold(campaign).filter(rater=rater).order_by("received_at", "pk")
    if since is not None:
        rows = rows.filter(received_at__gt=since)
    return [
        is_right(campaign.kind, known, answers, order)
        for known, answers, order in rows.values_list("item__gold__answers", "answers", "order")
    ]


def gold_records(campaigns: Sequence[Campaign], rater: User) -> dict[int, list[tuple[datetime, bool]]]:
    """Campaign id -> as `gold_record`, each with its time, for all these campaigns at once."""
    kinds = {campaign.pk: campaign.kind for campaign in campaigns}
    found: defaultdict[int, list[tuple[datetime, bool]]] = defaultdict(list)
    if not kinds:
        return found
    rows = _that_count().filter(item__campaign__in=kinds, rater=rater).order_by("received_at", "pk")
    columns = ("item__campaign", "received_at", "item__gold__answers", "answers", "order")
    for pk, at, known, answers, order in rows.values_list(*columns):
        found[pk].append((at, is_right(kinds[pk], known, answers, order)))
    return found


def accuracy_told(campaign: Campaign, rater: User) -> Share | None:
    """As `accuracies_told`, of one campaign; None where nothing may be told yet."""
    return accuracies_told([campaign], rater).get(campaign.pk)


def accuracies_told(campaigns: Sequence[Campaign], rater: User) -> dict[int, Share]:
    """Campaign id -> what the rater may know: the accuracy over the first tens of gold items, full ones only. Until the campaign
    is closed it goes by what they said first: who takes an answer back and looks at the figure would find out which item was gold."""
    closed = [campaign for campaign in campaigns if campaign.state == CampaignState.CLOSED]
    found = {}
    for pk, record in gold_records(closed, rater).items():
        if full := len(record) // STEP * STEP:
            found[pk] = Share(sum(right for _, right in record[:full]), full)
    return found | _first_told([campaign for campaign in campaigns if campaign.state != CampaignState.CLOSED], rater)


class _Span(NamedTuple):
    """The last hours in which a rater answered gold items of a campaign: in them lie those beyond the last full ten."""

    campaign: Campaign
    first: int  # Hours since 1970.
    last: int
    right: int  # Answers that were right before, and how many there were.
    before: int
    full: int  # How many answers may be told of.


def _first_told(campaigns: Sequence[Campaign], rater: User) -> dict[int, Share]:
    """By the counts of hours, and of the hours in which the last ten began by the answers themselves."""
    by_id = {campaign.pk: campaign for campaign in campaigns}
    hours: defaultdict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    kinds = (TallyKind.FIRST, TallyKind.FIRST_RIGHT)
    for name, (n, _) in tallies.read(by_id, *kinds, rater_id=rater.pk).items():
        hours[name.campaign_id][int(name.key)][kinds.index(TallyKind(name.what))] = n
    spans = [span for pk, each in hours.items() if (span := _span(by_id[pk], each))]
    rights = _rights_within(spans, rater)
    return {
        span.campaign.pk: Share(span.right + sum(rights[span.campaign.pk][: span.full - span.before]), span.full)
        for span in spans
    }


def _span(campaign: Campaign, hours: Mapping[int, Sequence[int]]) -> _Span | None:
    counts = sorted(hours.items())
    full = sum(n for _, (n, _) in counts) // STEP * STEP
    before = right = 0
    for hour, (n, rights) in counts:
        if before + n > full:
            return _Span(campaign, hour, counts[-1][0], right, before, full) if full else None
        before, right = before + n, right + rights
    return _Span(campaign, counts[-1][0] + 1, counts[-1][0], right, before, full) if full else None


def _rights_within(spans: Sequence[_Span], rater: User) -> dict[int, list[bool]]:
    """Campaign id -> whether each first answer was right within the span, the newest last."""
    found: defaultdict[int, list[bool]] = defaultdict(list)
    cut = [span for span in spans if span.before < span.full]
    if cut:
        columns = [
            [span.campaign.pk for span in cut],
            [span.campaign.compares for span in cut],
            [span.first for span in cut],
            [span.last for span in cut],
        ]
        for pk, right in fetch(WITHIN, [*columns, rater.pk]):
            found[pk].append(right)
    return found


def _on_gold(campaign: Campaign) -> QuerySet[Judgment]:
    return _that_count().filter(item__campaign=campaign)


def _that_count() -> QuerySet[Judgment]:
    # It measures the rater, and goes on doing so while what they say does not count.
    return Judgment.objects.final().filter(
        item__is_gold=True,
        item__gold__retired_at=None,
        received_at__gte=F("item__gold__created_at"),
    )
