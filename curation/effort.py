"""Effort: what a campaign has cost in rater hours, and what it still takes."""

from dataclasses import dataclass

from curation.models import Campaign, CampaignState
from curation.statistics import pace_of_day, progress_of, seconds_by_rater


@dataclass(frozen=True)
class Effort:
    """`hours` that raters looked at items, over the `timed` answers that say how long they took; `left` judgments are still
    wanted at least; `pace` in judgments an hour over the last day, 0 where nobody judged or the campaign is not open."""

    hours: float
    timed: int
    left: int
    pace: float

    @property
    def seconds_each(self) -> float | None:
        """Of a judgment, on average."""
        return 3600 * self.hours / self.timed if self.timed else None

    @property
    def hours_left(self) -> float | None:
        """Rater hours that the judgments left still cost, at what one has cost so far."""
        return self.left * self.hours / self.timed if self.timed else None

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
    return Effort(
        hours=sum(seconds * n for counts in by_rater for seconds, n in counts.items()) / 3600,
        timed=sum(counts.total() for counts in by_rater),
        left=max(progress.wanted - progress.judgments, 0),
        pace=pace_of_day(campaign) if campaign.state == CampaignState.OPEN else 0.0,
    )
