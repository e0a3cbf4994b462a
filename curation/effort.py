"""Effort: what a campaign has cost in rater hours, and what it still takes."""

from dataclasses import dataclass

from curation.accuracy import accuracy_by_rater
from curation.gold import active_gold
from curation.models import Campaign, CampaignState
from curation.statistics import pace_of_day, progress_of, seconds_by_rater


@dataclass(frozen=True)
class Effort:
    """`hours` that raters looked at items, over the `timed` answers that stand and say how long they took, to gold items and
    probes too; `left` judgments are still wanted at least, and about so many answers to gold items and probes come `beside` them;
    `pace` in judgments an hour over the last day, 0 where nobody judged or the campaign is not open."""

    hours: float
    timed: int
    left: int
    pace: float
    beside: int = 0

    @property
    def seconds_each(self) -> float | None:
        """Of an answer, on average."""
        return 3600 * self.hours / self.timed if self.timed else None

    @property
    def hours_left(self) -> float | None:
        """Rater hours that the judgments left still cost, with what comes beside them, at what an answer has cost so far."""
        return (self.left + self.beside) * self.hours / self.timed if self.timed else None

    @property
    def time_left(self) -> str:
        """How long the judgments left take at this pace, in words; empty where nobody can say."""
        if not self.pace or not self.left:
            return ""
        hours = self.left / self.pace
        if hours < 1:
            return "less than an hour"
        return f"about {hours:.0f} h" if hours < 48 else f"about {hours / 24:.0f} days"


def effort_of(campaign: Campaign) -> Effort:
    """What the campaign cost so far and still takes, by its counts."""
    by_rater = seconds_by_rater(campaign).values()
    progress = progress_of([campaign])[campaign.pk]
    left = max(progress.wanted - progress.judgments, 0)
    return Effort(
        hours=sum(seconds * n for counts in by_rater for seconds, n in counts.items()) / 3600,
        timed=sum(counts.total() for counts in by_rater),
        left=left,
        pace=pace_of_day(campaign) if campaign.state == CampaignState.OPEN else 0.0,
        beside=_beside(campaign, left),
    )


def _beside(campaign: Campaign, left: int) -> int:
    """How many gold items and probes come among so many judgments: the shares that are asked for (curation.mixing), gold no more
    than its raters have not answered yet."""
    if not left or campaign.state == CampaignState.CLOSED:
        return 0
    gold, probes = campaign.gold_percent / 100, campaign.probe_percent / 100
    with_probes = left / (1 - probes)
    with_gold = with_probes / (1 - gold)
    return round(with_probes - left + min(with_gold - with_probes, _gold_left(campaign) if gold else 0))


def _gold_left(campaign: Campaign) -> int:
    """How many answers to its gold items the campaign's raters may still give, at most."""
    answered, items = accuracy_by_rater(campaign), active_gold(campaign).count()
    raters = campaign.memberships.filter(removed_at=None).values_list("rater_id", flat=True)
    return sum(max(items - (answered[rater].n if rater in answered else 0), 0) for rater in raters)
