"""Datasets: selections of what was accepted or preferred, their frozen versions, and whether a run may learn from these."""

from typing import TYPE_CHECKING, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce, Now
from django.urls import reverse

from curation.models.campaigns import Campaign
from generation.models import Sample

if TYPE_CHECKING:
    from accounts.models import User


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

    def with_approval(self) -> "DatasetVersionQuerySet":
        """`approval` is the newest ApprovalAct of each, or an empty text."""
        newest = Approval.objects.filter(version=OuterRef("pk")).order_by("-pk")
        return self.annotate(approval=Coalesce(Subquery(newest.values("act")[:1]), Value("")))

    def waiting(self) -> "DatasetVersionQuerySet":
        """Those whose approval was asked for, and of which nobody has decided."""
        return self.with_approval().filter(Q(approval=ApprovalAct.ASKED))


class DatasetVersion(models.Model):
    """A frozen snapshot of a dataset. The database refuses to change or remove it or its entries."""

    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    content_hash = models.CharField(max_length=64, help_text="SHA-256 of the canonical manifest.")
    rule = models.CharField(max_length=1000, help_text="The rules of the verdicts behind it, joined by +.")
    # Kept, and not read from the judgments again, so that the hash of versions frozen before this was named stays.
    guidelines = models.JSONField(
        default=dict,
        db_default=Value({}, models.JSONField()),
        blank=True,
        help_text="Campaign's slug -> revisions of its guidelines behind the judgments, where these were several.",
    )
    questions = models.JSONField(
        default=dict,
        db_default=Value({}, models.JSONField()),
        blank=True,
        help_text="The same of the revisions of its questions.",
    )
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


class ApprovalAct(models.TextChoices):
    ASKED = "asked", "Approval asked for"
    APPROVED = "approved", "Approved"
    REFUSED = "refused", "Refused"
    WITHDRAWN = "withdrawn", "Approval withdrawn"


class Approval(models.Model):
    """One thing that somebody said of a version, append-only; the newest is how the version stands."""

    version = models.ForeignKey(DatasetVersion, on_delete=models.PROTECT, related_name="approvals")
    act = models.CharField(max_length=16, choices=ApprovalAct.choices)
    note = models.CharField(max_length=300, blank=True)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        help_text="Nobody for versions that were frozen before anybody was asked.",
    )
    at = models.DateTimeField(db_default=Now())

    objects: ClassVar = models.Manager["Approval"]()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(act__in=["asked", "approved"]) | ~Q(note=""), name="approval_says_why_not"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.version}: {self.get_act_display()}"


class DatasetEntry(models.Model):
    """One image of a frozen version, with why it is there; in a pair, the image that was preferred to `rejected`."""

    version = models.ForeignKey(DatasetVersion, on_delete=models.PROTECT, related_name="entries")
    position = models.PositiveIntegerField()
    sample = models.ForeignKey(Sample, on_delete=models.PROTECT, related_name="dataset_entries")
    image = models.CharField(max_length=64, help_text="SHA-256 of the PNG file.")
    caption = models.CharField(max_length=1000)
    bucket = models.CharField(max_length=60, blank=True)
    judgment_ids = models.JSONField(default=list, help_text="The judgments behind it, sorted.")
    adjudication_ids = models.JSONField(
        default=list, help_text="The decisions of curators behind it, sorted; empty where judgments alone decided."
    )
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
