"""Counts of a campaign's items and judgments, kept beside them."""

from typing import ClassVar

from django.db import models
from django.db.models import Q

from curation.models.campaigns import Campaign


class TallyKind(models.TextChoices):
    """What is counted, and by what: `bucket`, `question` and `key` are empty where none is named."""

    OPEN = "open", "Items that want judgments, by bucket and number of judgments"
    DONE = "done", "Items that want none, by bucket and number of judgments"
    OUTCOME = "outcome", "Items by bucket and outcome"
    SPLIT = "split", "Items that wait for a curator since their judgments contradict each other"
    FLAGGED = "flagged", "Other items that wait for a curator since a rater reported them"
    PATTERN = "pattern", "Items by bucket, question and what was answered how often, as JSON"
    REASON = "reason", "Reasons of standing fails by bucket, question and reason"
    WORD = "word", "Words of prompts that standing fails marked as wrong or missing"
    MINUTE = "minute", "Judgments of items that stand and count, by the minute in which they came, since 1970"
    REVISION = "revision", "Standing answers by the number of the guidelines' revision, empty where it is not known"
    WORDING = "wording", "Standing answers by the number of the questions' revision, empty where it is not known"
    SEEN = "seen", "A rater's judgments, with the time of the last"
    ENDED = "ended", "A rater's assignments by the action that stands"
    LATE = "late", "A rater's standing judgments that came late"
    HOUR = "hour", "A rater's standing answers by the hour in which they came, since 1970"
    SAID = "said", "A rater's standing answers by question and value, left and right as shown"
    SECONDS = "seconds", "A rater's standing answers by the seconds they took, rounded"
    AGREED = "agreed", "Answers of others that say the same as a rater's"
    COMPARED = "compared", "Answers of others to what a rater answered"
    SQUARES = "squares", "The squares of those, item by item, summed up"
    PAGED = "paged", "A rater's standing answers that were given in the grid"
    MEASURED = "measured", "A rater's standing answers to gold items"
    RIGHT = "right", "Those that are right"
    TRAIL = "trail", "A sum over them that another set of them would not have (curation.records)"
    FIRST = "first", "What a rater said first of gold items, by the hour in which it came, since 1970"
    FIRST_RIGHT = "firstok", "Of that, what was right"
    TWICE = "twice", "Probes of which both answers of their rater stand"
    SAME = "same", "Those with the same answers both times"
    SIDED = "sided", "In those, how often the rater chose a side of a comparison, both times counted"
    SIDED_SQUARES = "sidedsq", "The squares of those, probe by probe, summed up"
    LEFT = "left", "Of these, how often the left one, as shown"
    WAITING = "waiting", "Open items that a rater is through with"


class Tally(models.Model):
    """A part of a count: what a count is, is the sum of `n` over all rows that agree in everything else.

    Every change adds rows, so that raters do not queue up behind one; `curation.tallies.fold` adds them up. Nothing but
    curation.tallies writes here.
    """

    # Without constraints: their checks would lock the campaign's and the rater's row for every change of a count.
    campaign = models.ForeignKey(
        Campaign, on_delete=models.CASCADE, related_name="tallies", db_constraint=False, db_index=False
    )
    rater_id = models.BigIntegerField(default=0, help_text="0: of all raters.")
    what = models.CharField(max_length=8, help_text="A TallyKind.")
    bucket = models.CharField(max_length=60, blank=True)
    question = models.CharField(max_length=60, blank=True)
    key = models.TextField(blank=True)
    n = models.BigIntegerField()
    at = models.DateTimeField(null=True, blank=True)
    is_folded = models.BooleanField(default=False)

    objects: ClassVar = models.Manager()

    class Meta:
        verbose_name_plural = "tallies"
        indexes = [
            models.Index(fields=["what", "campaign", "rater_id"], name="tally_of_campaign"),
            models.Index(fields=["campaign", "key"], name="tally_of_minute", condition=Q(what="minute")),
            models.Index(fields=["campaign"], name="tally_loose", condition=Q(is_folded=False)),
        ]

    def __str__(self) -> str:
        return f"{self.what} of {self.campaign_id}"
