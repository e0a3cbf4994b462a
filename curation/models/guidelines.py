"""Guidelines: their revisions, the examples of each, and what raters answered to those that are asked first."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from curation.models.campaigns import Campaign
from generation.models import Sample


class GuidelineRevision(models.Model):
    """The guidelines as they once read. The newest says what `Campaign.guidelines` says; rows are only added."""

    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="revisions")
    number = models.PositiveIntegerField(help_text="From 1 on, in each campaign.")
    text = models.TextField(blank=True)
    change = models.CharField(max_length=200, help_text="What it changed, in a sentence.")
    asks_up_to = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text="The newest revision, of those up to this one, that asks raters to answer examples first which this one has.",
    )
    asks_percent = models.PositiveSmallIntegerField(
        default=80, db_default=80, help_text="How many of those must be right, in percent."
    )
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["campaign", "-number"]
        constraints = [
            models.CheckConstraint(
                condition=Q(asks_up_to__lte=F("number"), asks_percent__gte=1, asks_percent__lte=100),
                name="guideline_revision_asks_in_range",
            ),
            models.UniqueConstraint(fields=["campaign", "number"], name="guideline_revision_once"),
            models.CheckConstraint(condition=Q(number__gte=1), name="guideline_revision_from_one"),
        ]

    def __str__(self) -> str:
        return f"Revision {self.number}"

    @property
    def asks(self) -> bool:
        """Whether it was this revision that asked for its changed examples first."""
        return self.asks_up_to == self.number


class GuidelineExample(models.Model):
    """A sticker that a revision of the guidelines shows with the right answers and why, or in a comparison two beside each
    other. Rows are only added: each revision has all its examples."""

    revision = models.ForeignKey(GuidelineRevision, on_delete=models.PROTECT, related_name="examples")
    position = models.PositiveSmallIntegerField()
    sample = models.ForeignKey(Sample, on_delete=models.PROTECT, related_name="+")
    beside = models.ForeignKey(
        Sample, on_delete=models.PROTECT, null=True, blank=True, related_name="+", help_text="To its right."
    )
    answers = models.JSONField(
        default=dict, help_text="Question name -> choice value, left and right as it is shown; none in a pick."
    )
    is_good = models.BooleanField(null=True, help_text="Whether it passes; empty in a comparison.")
    why = models.CharField(max_length=200, blank=True, help_text="Why these are the right answers, in a sentence.")
    asked_since = models.PositiveIntegerField(
        null=True, blank=True, help_text="The revision that asks raters to answer it first; empty where none does."
    )

    class Meta:
        ordering = ["revision", "position"]
        constraints = [models.UniqueConstraint(fields=["revision", "position"], name="guideline_example_place_once")]

    def __str__(self) -> str:
        return self.why

    @property
    def samples(self) -> list[Sample]:
        """What it shows, from left to right."""
        return [self.sample] if self.beside is None else [self.sample, self.beside]


class ExampleAnswer(models.Model):
    """What a rater answered to an example that a revision asks first. Rows are only added; `up_to` is the number of that
    revision, and `attempt` counts a rater's attempts in the campaign from 1."""

    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="example_answers")
    rater = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    up_to = models.PositiveIntegerField()
    attempt = models.PositiveSmallIntegerField()
    example = models.ForeignKey(GuidelineExample, on_delete=models.PROTECT, related_name="+")
    answers = models.JSONField(help_text="Question name -> choice value, left and right as shown.")
    right = models.BooleanField()
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["campaign", "rater", "attempt"], name="example_answer_of_round")]
        constraints = [
            models.UniqueConstraint(fields=["rater", "example", "attempt"], name="example_answer_once"),
        ]

    def __str__(self) -> str:
        return f"Answer to example {self.example_id}"


class ExampleRound(models.Model):
    """An attempt at all examples that a revision asks first, once it ended; rows are only added."""

    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="example_rounds")
    rater = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    up_to = models.PositiveIntegerField()
    attempt = models.PositiveSmallIntegerField()
    right = models.PositiveSmallIntegerField()
    of = models.PositiveSmallIntegerField()
    percent = models.PositiveSmallIntegerField(help_text="How many had to be right.")
    passed = models.BooleanField()
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "rater", "attempt"], name="example_round_once"),
        ]

    def __str__(self) -> str:
        return f"{self.right} of {self.of} right"
