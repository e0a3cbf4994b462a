"""A campaign's work: items, the leases on them, the judgments, and the verdicts that those add up to."""

import uuid
from typing import TYPE_CHECKING, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now

from curation.models.campaigns import Campaign, CampaignRater, QuestionRevision
from curation.models.guidelines import GuidelineRevision
from generation.models import Prompt, Sample

if TYPE_CHECKING:
    from accounts.models import User


# More than any item has: what a rater has seen has no place for them.
MOST_PLACES = 1000
# Of an open item: a rater has not seen it, and it is short of judgments. The values are the rater's id and the overlap. One look
# at each item's assignments, through the index of items: by `live` the planner, who expects few leases, would go through all that
# there are on the server, for each item anew.
FREE = f"""
coalesce((
    SELECT sum(CASE WHEN a.rater_id = %s THEN CASE WHEN a.state = 'leased' AND a.expires_at <= statement_timestamp() THEN 0
                                                   ELSE {MOST_PLACES} END
                    WHEN a.state = 'leased' AND a.expires_at > statement_timestamp() AND NOT a.excluded THEN 1 ELSE 0 END)
    FROM curation_assignment a WHERE a.item_id = curation_item.id
), 0) < greatest(%s - curation_item.judged, 1)
"""  # noqa: S608 (Of a constant.)


class ItemQuerySet(models.QuerySet["Item"]):
    def to_decide(self) -> "ItemQuerySet":
        """Items that are judged for a verdict: all but gold, probes and examples of the guidelines."""
        return self.filter(is_gold=False)

    def free_for(self, rater: "User", overlap: int) -> "ItemQuerySet":
        """Open items that this rater has not seen and that are short of judgments, live leases of others counted in.

        One that has the judgments of the overlap and is open still wants another, and is leased to one rater at a time.
        """
        is_free = RawSQL(FREE, [rater.pk, overlap], output_field=models.BooleanField())  # noqa: S611 (A constant of ours.)
        return self.filter(is_free, is_open=True)


class Item(models.Model):
    """What is judged at once: one sample (alignment, style), two (compare), two sets of k (sets) or k candidates (pick)."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="items")
    position = models.PositiveIntegerField(help_text="The order in which the campaign was set up.")
    rank = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text="Where the campaign has another order: what is handed out first has the lowest (curation.order).",
    )
    # No index: where the order is by score, the rank follows it.
    score = models.FloatField(
        null=True, blank=True, help_text="What a model gave it (curation.scores). Who rates never sees it."
    )
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="+")
    bucket = models.CharField(max_length=60, blank=True)
    judged = models.PositiveSmallIntegerField(
        default=0, help_text="Raters whose standing judgment is an answer that counts."
    )
    is_open = models.BooleanField(default=True, help_text="Whether judgments are still wanted.")
    adjudicated = models.CharField(
        max_length=16,
        blank=True,
        default="",
        db_default="",
        help_text="The outcome that a curator decided on, which stands above what the rule says; empty where nobody did.",
    )
    is_gold = models.BooleanField(
        default=False,
        help_text="It has neither a place to fill nor a verdict: its answer is known, as that of gold or of an example of the "
        "guidelines, or it is a probe.",
    )

    objects: ClassVar = ItemQuerySet.as_manager()

    class Meta:
        ordering = ["campaign", "position"]
        indexes = [
            models.Index(fields=["campaign", "position"], name="item_open", condition=Q(is_open=True)),
            models.Index(fields=["campaign", "rank", "position"], name="item_ranked", condition=Q(is_open=True)),
            models.Index(fields=["campaign", "position"], name="item_gold", condition=Q(is_gold=True)),
        ]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "position"], name="item_position_once"),
            # What looks for open items need not ask whether they are gold.
            models.CheckConstraint(
                condition=Q(is_gold=False) | Q(is_open=False, judged=0), name="item_gold_is_not_open"
            ),
        ]

    # How many judgments it wants in all, as it stood when it was locked; set where judgments are taken in.
    wanted = 0

    def __str__(self) -> str:
        return f"Item {self.position} of {self.campaign_id}"

    @property
    def sides(self) -> tuple[list[Sample], list[Sample]]:
        """The samples of the baseline and of the candidate; the caller has fetched them by slot, or asks once an item."""
        samples = [row.sample for row in self.item_samples.all()]
        half = len(samples) // 2
        return samples[:half], samples[half:]

    def places(self, campaign: Campaign) -> int:
        """How many judgments it wants in all, as it stands."""
        if self.is_gold:
            return campaign.overlap
        return max(campaign.overlap, self.judged + 1) if self.is_open else min(self.judged, campaign.most)


class ItemSample(models.Model):
    """A sample in its slot. In a comparison slot 0 is the baseline and slot 1 the candidate, of sets the first half and the
    second (curation.sets); raters see neither. `picked` says of a candidate of a pick whether the item's verdict accepts it; elsewhere, and before there is a verdict, it is empty."""

    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="item_samples")
    slot = models.PositiveSmallIntegerField()
    sample = models.ForeignKey(Sample, on_delete=models.PROTECT, related_name="item_samples")
    picked = models.BooleanField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["item", "slot"]
        constraints = [models.UniqueConstraint(fields=["item", "slot"], name="item_slot_once")]

    def __str__(self) -> str:
        return f"Slot {self.slot} of {self.item_id}"


class SampleScore(models.Model):
    """What a model says of a sample, by the name of the measure; scores of one name can be compared with each other."""

    sample = models.ForeignKey(Sample, on_delete=models.CASCADE, related_name="scores")
    name = models.CharField(max_length=120)
    value = models.FloatField()
    measured_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["name", "sample"]
        constraints = [models.UniqueConstraint(fields=["name", "sample"], name="sample_score_once")]

    def __str__(self) -> str:
        return f"{self.name} of sample {self.sample_id}"


class GoldItem(models.Model):
    """The known answers of a gold item: question name -> choice value, in a comparison baseline or candidate in place of left
    and right. Questions that are left out do not count. Only judgments that come in after `created_at` are measured by it."""

    item = models.OneToOneField(Item, on_delete=models.CASCADE, related_name="gold")
    answers = models.JSONField()
    source = models.ForeignKey(
        Item, on_delete=models.PROTECT, null=True, blank=True, related_name="+", help_text="Of another campaign."
    )
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    retired_at = models.DateTimeField(null=True, blank=True, help_text="It is handed out no more and counts no more.")

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"Gold of {self.item_id}"


class GoldRecord(models.Model):
    """How many of a rater's answers to gold items were right, stretch by stretch, up to a time (curation.records). All of it can be
    made anew from the judgments; it saves reading them."""

    place = models.OneToOneField(CampaignRater, on_delete=models.CASCADE, primary_key=True, related_name="gold_record")
    length = models.PositiveSmallIntegerField(help_text="Answers of a stretch.")
    since = models.DateTimeField(null=True, blank=True, help_text="`measured_since` of the place, as it was.")
    until = models.DateTimeField(null=True, blank=True, help_text="When the last answer came that is in it.")
    trail = models.BigIntegerField(
        default=0, help_text="The sum over all answers up to then, those before `since` too."
    )
    answers = models.PositiveIntegerField(default=0)
    rights = models.JSONField(default=list, help_text="Right answers of each stretch.")

    def __str__(self) -> str:
        return f"Gold record of {self.place_id}"


class Probe(models.Model):
    """An item that shows one rater again what they judged, to see whether they say the same (curation.probes). Rows are only
    added."""

    item = models.OneToOneField(Item, on_delete=models.PROTECT, related_name="probe")
    of = models.ForeignKey(Item, on_delete=models.PROTECT, related_name="probes")
    rater = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["of", "rater"], name="probe_once_a_rater")]

    def __str__(self) -> str:
        return f"Probe of {self.of_id}"


class AssignmentState(models.TextChoices):
    LEASED = "leased", "Leased"
    JUDGED = "judged", "Judged"
    RELEASED = "released", "Released"


class AssignmentQuerySet(models.QuerySet["Assignment"]):
    def live(self) -> "AssignmentQuerySet":
        """Leased, and the lease has not run out."""
        return self.filter(state=AssignmentState.LEASED, expires_at__gt=Now())

    def that_count(self) -> "AssignmentQuerySet":
        """Those of raters who are not excluded: only they take a place."""
        return self.filter(excluded=False)


class Assignment(models.Model):
    """A lease on an item for one rater, and the order in which that rater sees its samples."""

    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="assignments")
    rater = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="assignments")
    state = models.CharField(max_length=16, choices=AssignmentState.choices, default=AssignmentState.LEASED)
    order = models.JSONField(default=list, help_text="Slots from left to right, as shown.")
    leased_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    # No index: nobody looks for assignments by their revision, and revisions are never deleted.
    guideline_revision = models.ForeignKey(
        GuidelineRevision,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
        help_text="The newest when it was leased; none where that was before this was kept.",
    )
    question_revision = models.ForeignKey(
        QuestionRevision,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
        help_text="The same of the questions.",
    )
    excluded = models.BooleanField(
        default=False,
        db_default=False,
        help_text="What its rater says of the item does not count, because a curator excluded the rater's judgments.",
    )

    objects: ClassVar = AssignmentQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        indexes = [
            models.Index(fields=["item", "expires_at"], name="assignment_live", condition=Q(state="leased")),
            models.Index(fields=["rater", "expires_at"], name="assignment_held", condition=Q(state="leased")),
            models.Index(fields=["expires_at"], name="assignment_expiry", condition=Q(state="leased")),
            # Few or none: what asks whether a judgment counts reads an index that is next to empty.
            models.Index(fields=["id"], name="assignment_excluded", condition=Q(excluded=True)),
        ]
        constraints = [models.UniqueConstraint(fields=["item", "rater"], name="assignment_once_a_rater")]

    def __str__(self) -> str:
        return f"Assignment {self.pk}"


class JudgmentAction(models.TextChoices):
    ANSWER = "answer", "Answer"
    SKIP = "skip", "Skip"
    FLAG = "flag", "Flag"
    UNDO = "undo", "Undo"


class JudgmentQuerySet(models.QuerySet["Judgment"]):
    def standing(self) -> "JudgmentQuerySet":
        """Answers that nothing has superseded, of raters who are not excluded: what counts."""
        return self.final().filter(~Exists(Assignment.objects.filter(pk=OuterRef("assignment"), excluded=True)))

    def final(self) -> "JudgmentQuerySet":
        """Answers that nothing has superseded, whether or not they count."""
        # Of `superseded_by__isnull`, an outer join, the planner expects one row of all there are, and sorts them to find it.
        superseded = Judgment.objects.filter(supersedes=OuterRef("pk"))
        return self.filter(~Exists(superseded), action=JudgmentAction.ANSWER)


class Judgment(models.Model):
    """One rater's answers, append-only: undo and correction are new rows that supersede. The id is the client's UUID."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    assignment = models.ForeignKey(Assignment, on_delete=models.PROTECT, related_name="judgments")
    item = models.ForeignKey(Item, on_delete=models.PROTECT, related_name="judgments")
    rater = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="judgments")
    action = models.CharField(max_length=8, choices=JudgmentAction.choices, default=JudgmentAction.ANSWER)
    answers = models.JSONField(default=dict, help_text="Question name -> choice value.")
    details = models.JSONField(
        default=dict,
        blank=True,
        help_text="Why a question was failed: question name -> reasons, words (places in the prompt), point (x, y; 0 to 1).",
    )
    reason = models.CharField(max_length=300, blank=True)
    order = models.JSONField(default=list, help_text="Slots as they were shown, from left to right.")
    shown_at = models.DateTimeField(null=True, blank=True, help_text="By the client's clock.")
    decided_at = models.DateTimeField(null=True, blank=True, help_text="By the client's clock.")
    received_at = models.DateTimeField(db_default=Now())
    page = models.UUIDField(
        null=True,
        blank=True,
        help_text="Shared by the judgments of one page of the grid; none where it was shown alone.",
    )
    place = models.PositiveSmallIntegerField(null=True, blank=True, help_text="Where on the page it was, from 0.")
    page_size = models.PositiveSmallIntegerField(null=True, blank=True, help_text="How many were on the page.")
    # No index, as with assignments.
    guideline_revision = models.ForeignKey(
        GuidelineRevision,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
        help_text="What the rater had to read; none where that is not known.",
    )
    question_revision = models.ForeignKey(
        QuestionRevision,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
        help_text="How the questions read to the rater; none where that is not known.",
    )
    late = models.BooleanField(
        default=False, help_text="Arrived after its lease had run out, or when the item had enough."
    )
    supersedes = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="superseded_by"
    )

    objects: ClassVar = JudgmentQuerySet.as_manager()

    class Meta:
        ordering = ["received_at", "id"]
        indexes = [
            models.Index(fields=["item", "rater"], name="judgment_of_item"),
            models.Index(fields=["rater", "-received_at"], name="judgment_of_rater"),
            models.Index(fields=["item"], name="judgment_flag", condition=Q(action="flag")),
            models.Index(
                fields=["-received_at"], name="judgment_skip_reason", condition=Q(action="skip") & ~Q(reason="")
            ),
            models.Index(fields=["-received_at", "-decided_at", "-id"], name="judgment_newest"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["assignment"], condition=Q(supersedes__isnull=True), name="judgment_first_once"
            ),
            models.CheckConstraint(
                condition=~Q(action="undo") | Q(supersedes__isnull=False), name="judgment_undo_supersedes"
            ),
            models.CheckConstraint(
                condition=Q(page=None, place=None, page_size=None)
                | Q(page__isnull=False, place__lt=F("page_size"), place__isnull=False, page_size__isnull=False),
                name="judgment_page_whole",
            ),
        ]

    def __str__(self) -> str:
        return f"Judgment {self.pk}"


class Outcome(models.TextChoices):
    ACCEPTED = "accepted", "Accepted"
    REJECTED = "rejected", "Rejected"
    SPLIT = "split", "Split"
    PENDING = "pending", "Pending"
    # Of a comparison: which slot won.
    BASELINE = "baseline", "Baseline preferred"
    CANDIDATE = "candidate", "Candidate preferred"
    TIE = "tie", "Tie"


class Verdict(models.Model):
    """What the standing judgments of an item add up to, by a named rule, or what a curator decided over them."""

    # The unique constraint is its index.
    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="verdicts", db_index=False)
    rule = models.CharField(max_length=32, default="majority")
    outcome = models.CharField(max_length=16, choices=Outcome.choices, help_text="What stands.")
    by_rule = models.CharField(
        max_length=16, choices=Outcome.choices, blank=True, default="", help_text="What the rule alone says."
    )
    contested = models.BooleanField(
        default=False, db_default=False, help_text="The item has its judgments, and they contradict each other."
    )
    tallies = models.JSONField(default=dict, help_text="Question name -> choice value -> count.")
    posteriors = models.JSONField(
        null=True,
        blank=True,
        help_text="Question name -> choice value -> how likely it is true, where the rule is an estimated one.",
    )
    judgments = models.PositiveSmallIntegerField()
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["item"], name="verdict_once")]
        indexes = [
            models.Index(fields=["outcome"], name="verdict_outcome"),
            models.Index(fields=["item"], name="verdict_contested", condition=Q(contested=True)),
        ]

    def __str__(self) -> str:
        return f"{self.outcome} for {self.item_id}"


class AdjudicationAction(models.TextChoices):
    DECIDE = "decide", "Decided"
    UNDO = "undo", "Undone"


class AdjudicationQuerySet(models.QuerySet["Adjudication"]):
    def standing(self) -> "AdjudicationQuerySet":
        """Decisions that nothing has superseded: what counts."""
        return self.filter(action=AdjudicationAction.DECIDE, superseded_by__isnull=True)


class Adjudication(models.Model):
    """A curator's decision on an item, which stands above its judgments; append-only. An undo and another decision are new
    rows that supersede the one before."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    item = models.ForeignKey(Item, on_delete=models.PROTECT, related_name="adjudications")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="adjudications")
    action = models.CharField(max_length=8, choices=AdjudicationAction.choices, default=AdjudicationAction.DECIDE)
    answers = models.JSONField(default=dict, help_text="Question name -> choice value.")
    order = models.JSONField(default=list, help_text="Slots as they were shown, from left to right.")
    reason = models.CharField(max_length=300, blank=True)
    at = models.DateTimeField(db_default=Now())
    supersedes = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="superseded_by"
    )

    objects: ClassVar = AdjudicationQuerySet.as_manager()

    class Meta:
        ordering = ["at", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["item"], condition=Q(supersedes__isnull=True), name="adjudication_first_once"
            ),
            models.CheckConstraint(
                condition=~Q(action="undo") | Q(supersedes__isnull=False), name="adjudication_undo_supersedes"
            ),
        ]

    def __str__(self) -> str:
        return f"Adjudication {self.pk}"
