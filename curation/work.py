"""A rater's own work: what waits for them, what they did, and how they agree, for all their campaigns at once.

Everything comes from counts (curation.tallies) but the answers to the gold items of a qualification round and of closed campaigns. Nothing here may tell a rater of an
open campaign what others said of an item, or which item was gold: figures move in steps.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from django.utils import timezone

from accounts.models import User
from curation import tallies
from curation.accuracy import accuracies_told, gold_records
from curation.example_rounds import is_asked, with_asked
from curation.models import Campaign, CampaignRater, CampaignState, JudgmentAction, RaterState, TallyKind
from curation.standing import home_words
from curation.statistics import Share, agreement_of, median_of

DAYS = 14
# While a campaign is open, agreement is told from so many answers of others on, and only as an interval rounded outwards.
LEAST_COMPARED = 50
STEP_PERCENT = 5
STEP_LEFT = 10
_Record = list[tuple[datetime, bool]]
KINDS = ("ENDED", "SECONDS", "HOUR", "AGREED", "COMPARED", "SQUARES", "WAITING")


@dataclass
class Work:
    """One campaign. `left` is what waits in words, empty where nothing does; `standing` what the rater should know; `agreement`
    is told when all is judged, `between` (low, high in percent) before."""

    campaign: Campaign
    place: CampaignRater
    judged: int
    median_seconds: float | None
    left: str = ""
    standing: str = ""
    accuracy: Share | None = None
    agreement: Share | None = None
    between: tuple[int, int] | None = None

    @property
    def is_blind(self) -> bool:
        """Whether it is a comparison, in which nobody hears what others say while it goes on."""
        return self.campaign.compares

    @property
    def way_on(self) -> str:
        """What the link to the rating screen is called; empty where it leads nowhere."""
        if self.campaign.state != CampaignState.OPEN or self.place.removed_at:
            return ""
        if self.place.state in (RaterState.PAUSED, RaterState.UNQUALIFIED):
            return "Read the guidelines"
        if is_asked(self.place, getattr(self.place, "asks_up_to", 0)):
            return "Answer the changed examples"
        if self.place.state == RaterState.QUALIFYING:
            return "Go on with the qualification round" if self.judged else "Begin the qualification round"
        return ("Continue rating" if self.judged else "Start rating") if self.left else ""


@dataclass
class _Counts:
    ended: Counter[str] = field(default_factory=Counter)
    seconds: Counter[float] = field(default_factory=Counter)
    agreed: int = 0
    compared: int = 0
    squares: int = 0
    waiting: int = 0


@dataclass(frozen=True)
class Desk:
    """All campaigns of a rater, the newest first; `days` are (day, judgments that stand), today last."""

    campaigns: list[Work]
    days: list[tuple[date, int]]
    median_seconds: float | None

    @property
    def waiting(self) -> list[Work]:
        """Where there is something to do or to know now, the oldest first, as on the first page."""
        return [work for work in reversed(self.campaigns) if work.way_on]

    @property
    def done(self) -> list[Work]:
        """Where they judged."""
        return [work for work in self.campaigns if work.judged]

    @property
    def judged(self) -> int:
        """Judgments that stand, in all campaigns."""
        return sum(work.judged for work in self.campaigns)

    @property
    def busiest(self) -> int:
        """The most judgments of a day, at least 1."""
        return max(1, *(count for _, count in self.days))

    @property
    def recent(self) -> int:
        """Judgments of all these days."""
        return sum(count for _, count in self.days)


def desk_of(rater: User, now: datetime | None = None) -> Desk:
    """What this rater sees of their own work. As many queries for a hundred campaigns as for one."""
    places = (
        with_asked(CampaignRater.objects.filter(rater=rater))
        .exclude(campaign__state=CampaignState.DRAFT)
        .select_related("campaign", "rater")
        .order_by("-campaign__opened_at", "-campaign")
    )
    by_id = {place.campaign_id: place for place in places}
    counts, hours = _counts_of(by_id, rater)
    open_items: Counter[int] = Counter()
    for name, (n, _) in tallies.read(by_id, TallyKind.OPEN).items():
        open_items[name.campaign_id] += n
    all_campaigns = [place.campaign for place in by_id.values()]
    told = accuracies_told(all_campaigns, rater)
    in_round = [place.campaign for place in by_id.values() if place.state == RaterState.QUALIFYING]
    records = gold_records(in_round, rater)
    campaigns = [
        _work(place, counts[pk], open_items[pk], records.get(pk, []), told.get(pk)) for pk, place in by_id.items()
    ]
    seconds = sum((each.seconds for each in counts.values()), Counter[float]())
    return Desk(campaigns, _days(hours, now or timezone.now()), median_of(seconds))


def _counts_of(campaigns: dict[int, CampaignRater], rater: User) -> tuple[dict[int, _Counts], Counter[int]]:
    found: defaultdict[int, _Counts] = defaultdict(_Counts)
    hours: Counter[int] = Counter()
    for name, (n, _) in tallies.read(campaigns, *(TallyKind[kind] for kind in KINDS), rater_id=rater.pk).items():
        counts = found[name.campaign_id]
        if name.what == TallyKind.HOUR:
            hours[int(name.key)] += n
        elif name.what == TallyKind.ENDED:
            counts.ended[name.key] = n
        elif name.what == TallyKind.SECONDS:
            counts.seconds[float(name.key)] = n
        else:
            setattr(counts, name.what, n)
    return found, hours


def _work(place: CampaignRater, counts: _Counts, open_items: int, record: _Record, accuracy: Share | None) -> Work:
    campaign = place.campaign
    work = Work(campaign, place, counts.ended[JudgmentAction.ANSWER], median_of(counts.seconds), accuracy=accuracy)
    if campaign.state == CampaignState.OPEN and not place.removed_at:
        given = sum(1 for at, _ in record if place.measured_since is None or at > place.measured_since)
        work.standing = home_words(campaign, place, given)
        work.left = _left_in_words(open_items - counts.waiting) if place.state == RaterState.RATING else ""
    agreement = agreement_of(counts.agreed, counts.compared, counts.squares)
    if campaign.state == CampaignState.CLOSED:
        work.agreement = agreement if counts.compared else None
    elif not work.is_blind:
        work.between = _between(agreement)
    return work


def _left_in_words(items: int) -> str:
    """A count that moved with each judgment but the gold ones would say which those are."""
    if items <= 0:
        return ""
    return (
        "A few items are left" if items < STEP_LEFT else f"At least {items // STEP_LEFT * STEP_LEFT:,} items are left"
    )


def _between(share: Share) -> tuple[int, int] | None:
    if share.n < LEAST_COMPARED or share.interval is None:
        return None
    low, high = share.interval
    return math.floor(low / STEP_PERCENT) * STEP_PERCENT, math.ceil(high / STEP_PERCENT) * STEP_PERCENT


def _days(hours: Counter[int], now: datetime) -> list[tuple[date, int]]:
    """Judgments by day of the workspace's time zone. Where that is off by half hours, midnight is rounded to the hour."""
    zone = timezone.get_current_timezone()
    by_day: Counter[date] = Counter()
    for hour, count in hours.items():
        by_day[datetime.fromtimestamp(3600 * hour, zone).date()] += count
    today = now.astimezone(zone).date()
    days = [today - timedelta(days=ago) for ago in reversed(range(DAYS))]
    return [(day, by_day[day]) for day in days]
