"""Accuracy: how often a rater says what is known of gold items, by the judgments that stand."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from django.db.models import Count, F, QuerySet

from accounts.models import User
from curation import tallies
from curation.models import COMPARISONS, Campaign, CampaignState, Item, Judgment, JudgmentAction, TallyKind
from curation.statistics import Share
from curation.verdicts import preferred

# A rater hears of their accuracy in steps of so many gold items: news after each would say which item was gold.
STEP = 10
OF_ACCURACY = (TallyKind.MEASURED, TallyKind.RIGHT)


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


def gold_records(
    campaigns: Sequence[Campaign], rater: User, *, first: bool = False
) -> dict[int, list[tuple[datetime, bool]]]:
    """Campaign id -> as `gold_record`, each with its time, for all these campaigns at once; of what the rater said `first` of each
    item, whatever became of that."""
    kinds = {campaign.pk: campaign.kind for campaign in campaigns}
    rows = _that_count(first=first).filter(item__campaign__in=kinds, rater=rater).order_by("received_at", "pk")
    found: defaultdict[int, list[tuple[datetime, bool]]] = defaultdict(list)
    columns = ("item__campaign", "received_at", "item__gold__answers", "answers", "order")
    for pk, at, known, answers, order in rows.values_list(*columns):
        found[pk].append((at, is_right(kinds[pk], known, answers, order)))
    return found


def accuracy_told(campaign: Campaign, rater: User) -> Share | None:
    """What the rater may know: the accuracy over the first tens of gold items, full ones only. Until the campaign is closed it goes
    by what they said first: who takes an answer back and looks at the figure would find out which item was gold."""
    is_closed = campaign.state == CampaignState.CLOSED
    return told_of([right for _, right in gold_records([campaign], rater, first=not is_closed).get(campaign.pk, [])])


def told_of(record: Sequence[bool]) -> Share | None:
    """As `accuracy_told`, of a record that is at hand, by what may be told."""
    full = len(record) // STEP * STEP
    return Share(sum(record[:full]), full) if full else None


def _on_gold(campaign: Campaign) -> QuerySet[Judgment]:
    return _that_count().filter(item__campaign=campaign)


def _that_count(*, first: bool = False) -> QuerySet[Judgment]:
    begun = Judgment.objects.filter(supersedes=None, action=JudgmentAction.ANSWER)
    # It measures the rater, and goes on doing so while what they say does not count.
    return (begun if first else Judgment.objects.final()).filter(
        item__is_gold=True,
        item__gold__retired_at=None,
        received_at__gte=F("item__gold__created_at"),
    )
