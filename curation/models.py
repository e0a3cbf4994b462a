"""What people think of the images: campaigns, leases, judgments, verdicts, and the datasets frozen from them."""

import uuid
from typing import TYPE_CHECKING, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Coalesce, Now
from django.urls import reverse

from generation.models import Prompt, Sample

if TYPE_CHECKING:
    from accounts.models import User


class CampaignKind(models.TextChoices):
    ALIGNMENT = "alignment", "Alignment"
    STYLE = "style", "Style"
    PICK = "pick", "Pick"
    COMPARE = "compare", "Compare"


class CampaignState(models.TextChoices):
    DRAFT = "draft", "Draft"
    OPEN = "open", "Open"
    PAUSED = "paused", "Paused"
    CLOSED = "closed", "Closed"


class CampaignQuerySet(models.QuerySet["Campaign"]):
    def visible_to(self, user: "User") -> "CampaignQuerySet":
        """The team sees all campaigns; a rater those that they were put on."""
        if user.is_superuser or user.has_role("curator", "operator", "auditor"):
            return self
        return self.filter(memberships__rater=user, memberships__removed_at=None).exclude(state=CampaignState.DRAFT)

    def rateable_by(self, user: "User") -> "CampaignQuerySet":
        """Open campaigns whose rater this person is; without the role nobody rates, whatever they were put on."""
        return self.with_rater(user).filter(state=CampaignState.OPEN)

    def with_rater(self, user: "User") -> "CampaignQuerySet":
        """Campaigns that were opened at least once and that this person, who has the role, was put on."""
        if not (user.is_superuser or user.has_role("rater")):
            return self.none()
        return self.filter(memberships__rater=user, memberships__removed_at=None).exclude(state=CampaignState.DRAFT)


class Campaign(models.Model):
    """A rating task: what is judged, by whom, by which questions, how often."""

    slug = models.SlugField(max_length=80, unique=True)
    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=16, choices=CampaignKind.choices)
    state = models.CharField(max_length=16, choices=CampaignState.choices, default=CampaignState.DRAFT)
    overlap = models.PositiveSmallIntegerField(default=1, help_text="Judgments wanted for each item.")
    lease_seconds = models.PositiveIntegerField(default=1800)
    guidelines = models.TextField(blank=True, help_text="Markdown, shown beside the work.")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    opened_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar = CampaignQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(overlap__gte=1, overlap__lte=25), name="campaign_overlap_in_range"),
            models.CheckConstraint(condition=Q(lease_seconds__gte=10), name="campaign_lease_long_enough"),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("campaign", args=[self.slug])


class CampaignEvent(models.Model):
    """What happened to a campaign, in order; rows are only added."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=32)  # created, opened, paused, closed, raters
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    at = models.DateTimeField(db_default=Now())
    detail = models.JSONField(default=dict)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.kind} of {self.campaign_id}"


class CampaignRater(models.Model):
    """A person's place among a campaign's raters; leaving keeps the row."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="memberships")
    rater = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="memberships")
    joined_at = models.DateTimeField(db_default=Now())
    removed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["campaign", "rater"], name="campaign_rater_once")]

    def __str__(self) -> str:
        return f"{self.rater_id} in {self.campaign_id}"


class Question(models.Model):
    """One question of a campaign's rubric. `choices`: [{"value", "label", "key", "accepts"}], keys single characters or
    names such as ArrowLeft; a choice that accepts counts towards a pass."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="questions")
    position = models.PositiveSmallIntegerField()
    name = models.SlugField(max_length=60)
    text = models.CharField(max_length=200)
    choices = models.JSONField()
    required = models.BooleanField(default=True)

    class Meta:
        ordering = ["campaign", "position"]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "name"], name="question_name_once"),
            models.UniqueConstraint(fields=["campaign", "position"], name="question_position_once"),
        ]

    def __str__(self) -> str:
        return self.text

    @property
    def values(self) -> list[str]:
        return [choice["value"] for choice in self.choices]


class GuidelineExample(models.Model):
    """A sticker that shows what to accept or to refuse."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="examples")
    sample = models.ForeignKey(Sample, on_delete=models.PROTECT, related_name="+")
    is_good = models.BooleanField()
    note = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["campaign", "-is_good", "id"]

    def __str__(self) -> str:
        return self.note


class ItemQuerySet(models.QuerySet["Item"]):
    def free_for(self, rater: "User", overlap: int) -> "ItemQuerySet":
        """Open items that this rater has not seen and that are short of judgments, live leases of others counted in."""
        seen = Assignment.objects.filter(item=OuterRef("pk"), rater=rater).exclude(
            state=AssignmentState.LEASED, expires_at__lte=Now()
        )
        others = (
            Assignment.objects.live()
            .filter(item=OuterRef("pk"))
            .exclude(rater=rater)
            .order_by()
            .values("item")
            .annotate(count=models.Count("pk"))
            .values("count")
        )
        return (
            self.filter(~Exists(seen), is_open=True)
            .alias(leased=Coalesce(models.Subquery(others), 0))
            .filter(judged__lt=overlap - F("leased"))
        )


class Item(models.Model):
    """What is judged at once: one sample (alignment, style), two (compare) or k candidates (pick)."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="items")
    position = models.PositiveIntegerField(help_text="The order in which items are handed out.")
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="+")
    bucket = models.CharField(max_length=60, blank=True)
    judged = models.PositiveSmallIntegerField(default=0, help_text="Raters whose standing judgment is an answer.")
    is_open = models.BooleanField(default=True, help_text="Whether judgments are still wanted.")

    objects: ClassVar = ItemQuerySet.as_manager()

    class Meta:
        ordering = ["campaign", "position"]
        indexes = [models.Index(fields=["campaign", "position"], name="item_open", condition=Q(is_open=True))]
        constraints = [models.UniqueConstraint(fields=["campaign", "position"], name="item_position_once")]

    def __str__(self) -> str:
        return f"Item {self.position} of {self.campaign_id}"


class ItemSample(models.Model):
    """A sample in its slot. In a comparison slot 0 is the baseline and slot 1 the candidate; raters see neither."""

    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="item_samples")
    slot = models.PositiveSmallIntegerField()
    sample = models.ForeignKey(Sample, on_delete=models.PROTECT, related_name="item_samples")

    class Meta:
        ordering = ["item", "slot"]
        constraints = [models.UniqueConstraint(fields=["item", "slot"], name="item_slot_once")]

    def __str__(self) -> str:
        return f"Slot {self.slot} of {self.item_id}"


class AssignmentState(models.TextChoices):
    LEASED = "leased", "Leased"
    JUDGED = "judged", "Judged"
    RELEASED = "released", "Released"


class AssignmentQuerySet(models.QuerySet["Assignment"]):
    def live(self) -> "AssignmentQuerySet":
        """Leased, and the lease has not run out."""
        return self.filter(state=AssignmentState.LEASED, expires_at__gt=Now())


class Assignment(models.Model):
    """A lease on an item for one rater, and the order in which that rater sees its samples."""

    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="assignments")
    rater = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="assignments")
    state = models.CharField(max_length=16, choices=AssignmentState.choices, default=AssignmentState.LEASED)
    order = models.JSONField(default=list, help_text="Slots from left to right, as shown.")
    leased_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()

    objects: ClassVar = AssignmentQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        indexes = [
            models.Index(fields=["item", "expires_at"], name="assignment_live", condition=Q(state="leased")),
            models.Index(fields=["rater", "expires_at"], name="assignment_held", condition=Q(state="leased")),
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
        """Answers that nothing has superseded: what counts."""
        return self.filter(action=JudgmentAction.ANSWER, superseded_by__isnull=True)


class Judgment(models.Model):
    """One rater's answers, append-only: undo and correction are new rows that supersede. The id is the client's UUID."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    assignment = models.ForeignKey(Assignment, on_delete=models.PROTECT, related_name="judgments")
    item = models.ForeignKey(Item, on_delete=models.PROTECT, related_name="judgments")
    rater = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="judgments")
    action = models.CharField(max_length=8, choices=JudgmentAction.choices, default=JudgmentAction.ANSWER)
    answers = models.JSONField(default=dict, help_text="Question name -> choice value.")
    reason = models.CharField(max_length=300, blank=True)
    order = models.JSONField(default=list, help_text="Slots as they were shown, from left to right.")
    shown_at = models.DateTimeField(null=True, blank=True, help_text="By the client's clock.")
    decided_at = models.DateTimeField(null=True, blank=True, help_text="By the client's clock.")
    received_at = models.DateTimeField(db_default=Now())
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
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["assignment"], condition=Q(supersedes__isnull=True), name="judgment_first_once"
            ),
            models.CheckConstraint(
                condition=~Q(action="undo") | Q(supersedes__isnull=False), name="judgment_undo_supersedes"
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
    """What the standing judgments of an item add up to, by a named rule."""

    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="verdicts")
    rule = models.CharField(max_length=32, default="majority")
    outcome = models.CharField(max_length=16, choices=Outcome.choices)
    tallies = models.JSONField(default=dict, help_text="Question name -> choice value -> count.")
    judgments = models.PositiveSmallIntegerField()
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["item", "rule"], name="verdict_once_a_rule")]
        indexes = [models.Index(fields=["outcome"], name="verdict_outcome")]

    def __str__(self) -> str:
        return f"{self.outcome} for {self.item_id}"


class DatasetKind(models.TextChoices):
    IMAGES = "images", "Images"
    PAIRS = "pairs", "Pairs"


class DatasetQuerySet(models.QuerySet["Dataset"]):
    def visible_to(self, user: "User") -> "DatasetQuerySet":
        return self if user.is_superuser or user.has_role("curator", "operator", "auditor") else self.none()


class Dataset(models.Model):
    """A named selection: accepted images of some campaigns, or the decided pairs of some comparisons."""

    slug = models.SlugField(max_length=80, unique=True)
    name = models.CharField(max_length=120)
    kind = models.CharField(
        max_length=16,
        choices=DatasetKind.choices,
        default=DatasetKind.IMAGES,
        help_text="What an entry is; its campaigns decide it when it is made, and it never changes.",
    )
    note = models.CharField(max_length=300, blank=True)
    campaigns = models.ManyToManyField(Campaign, related_name="datasets")
    rule = models.CharField(max_length=32, default="majority")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar = DatasetQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("dataset", args=[self.slug])

    @property
    def unit(self) -> str:
        """What one entry is called on a page."""
        return "pair" if self.kind == DatasetKind.PAIRS else "image"


class DatasetVersionQuerySet(models.QuerySet["DatasetVersion"]):
    def visible_to(self, user: "User") -> "DatasetVersionQuerySet":
        return self if user.is_superuser or user.has_role("curator", "operator", "auditor") else self.none()


class DatasetVersion(models.Model):
    """A frozen snapshot of a dataset. The database refuses to change or remove it or its entries."""

    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    content_hash = models.CharField(max_length=64, help_text="SHA-256 of the canonical manifest.")
    rule = models.CharField(max_length=32)
    entry_count = models.PositiveIntegerField()
    note = models.CharField(max_length=300, blank=True)
    frozen_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    frozen_at = models.DateTimeField(db_default=Now())

    # Whether this very call froze it, or found it frozen from the same facts before; set by datasets.freeze.
    newly_frozen = False

    objects: ClassVar = DatasetVersionQuerySet.as_manager()

    class Meta:
        ordering = ["dataset", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["dataset", "number"], name="dataset_version_once"),
            models.UniqueConstraint(fields=["dataset", "content_hash"], name="dataset_content_frozen_once"),
        ]

    def __str__(self) -> str:
        return f"{self.dataset.name} v{self.number}"

    def get_absolute_url(self) -> str:
        return reverse("dataset_version", args=[self.dataset.slug, self.number])


class DatasetEntry(models.Model):
    """One image of a frozen version, with why it is there; in a pair, the image that was preferred to `rejected`."""

    version = models.ForeignKey(DatasetVersion, on_delete=models.PROTECT, related_name="entries")
    position = models.PositiveIntegerField()
    sample = models.ForeignKey(Sample, on_delete=models.PROTECT, related_name="dataset_entries")
    image = models.CharField(max_length=64, help_text="SHA-256 of the PNG file.")
    caption = models.CharField(max_length=1000)
    bucket = models.CharField(max_length=60, blank=True)
    judgment_ids = models.JSONField(default=list, help_text="The judgments behind it, sorted.")
    rejected = models.ForeignKey(Sample, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    rejected_image = models.CharField(
        max_length=64, blank=True, default="", help_text="SHA-256 of the PNG file of a pair's rejected sample."
    )

    class Meta:
        ordering = ["version", "position"]
        constraints = [
            models.UniqueConstraint(fields=["version", "position"], name="dataset_entry_position_once"),
            # Where nothing is rejected, which is null, a sample still fits once.
            models.UniqueConstraint(
                fields=["version", "sample", "rejected"], nulls_distinct=False, name="dataset_entry_sample_once"
            ),
            models.CheckConstraint(
                condition=Q(rejected=None, rejected_image="") | (Q(rejected__isnull=False) & ~Q(rejected_image="")),
                name="dataset_entry_rejected_whole",
            ),
            models.CheckConstraint(condition=~Q(rejected_image=F("image")), name="dataset_entry_images_differ"),
        ]

    def __str__(self) -> str:
        return self.caption
