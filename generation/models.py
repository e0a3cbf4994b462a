"""How an image comes to be: prompts, the versions of the model, requests to draw, and the samples drawn."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.urls import reverse

from generation.engine.families import FAMILIES, FLUX, STABLE_DIFFUSION, Family
from jobs.models import Job, JobState

if TYPE_CHECKING:
    from accounts.models import User


class PromptSetQuerySet(models.QuerySet["PromptSet"]):
    def visible_to(self, user: "User") -> "PromptSetQuerySet":
        return self if user.is_superuser or user.has_role("curator", "operator", "auditor") else self.none()

    def latest_versions(self) -> "PromptSetQuerySet":
        """The newest version of each name."""
        return self.order_by("slug", "-version").distinct("slug")


class PromptSet(models.Model):
    """An ordered, immutable version of a named list of prompts. A change makes the next version of the same slug."""

    slug = models.SlugField(max_length=80)
    version = models.PositiveIntegerField(default=1)
    name = models.CharField(max_length=120)
    note = models.CharField(max_length=300, blank=True)
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="children")
    content_hash = models.CharField(max_length=64, help_text="SHA-256 of the canonical list of prompts.")
    prompt_count = models.PositiveIntegerField()
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar = PromptSetQuerySet.as_manager()

    class Meta:
        ordering = ["slug", "-version"]
        constraints = [models.UniqueConstraint(fields=["slug", "version"], name="prompt_set_version_once")]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"

    def get_absolute_url(self) -> str:
        return reverse("prompt_set", args=[self.slug, self.version])


class Prompt(models.Model):
    """One text of a set, with the class it belongs to.

    Its images are drawn with the text, and judged by and taught under the caption: what a user of the finished model
    would type, without the words that make today's model draw the look.
    """

    prompt_set = models.ForeignKey(PromptSet, on_delete=models.CASCADE, related_name="prompts")
    position = models.PositiveIntegerField()
    text = models.CharField(max_length=1000)
    bucket = models.CharField(max_length=60, blank=True)
    caption = models.CharField(max_length=1000, blank=True, help_text="Empty: the prompt itself.")

    class Meta:
        ordering = ["prompt_set", "position"]
        constraints = [
            models.UniqueConstraint(fields=["prompt_set", "position"], name="prompt_position_once"),
            # One way to say that a prompt is its own caption, so that equal sets have equal hashes.
            models.CheckConstraint(condition=~Q(caption=F("text")), name="prompt_caption_differs"),
        ]

    def __str__(self) -> str:
        return self.text

    @property
    def taught_as(self) -> str:
        """The text by which its images are judged and under which they are taught."""
        return self.caption or self.text


class ModelOrigin(models.TextChoices):
    IMPORTED = "imported", "Imported"
    TRAINED = "trained", "Trained"
    COMBINED = "combined", "Combined"


class ModelVersionQuerySet(models.QuerySet["ModelVersion"]):
    def visible_to(self, user: "User") -> "ModelVersionQuerySet":
        return self if user.is_superuser or user.has_role("curator", "operator", "auditor") else self.none()

    def promoted(self) -> "ModelVersion | None":
        """The version that the next batch uses by default: the one promoted last, else the newest."""
        last = ModelPromotion.objects.order_by("-id").select_related("model_version").first()
        return last.model_version if last else self.order_by("-number").first()


class ModelVersion(models.Model):
    """Immutable weights: a diffusers folder known by the hash of its contents."""

    number = models.PositiveIntegerField(unique=True, help_text="v1, v2, ... in the order of their making.")
    name = models.CharField(max_length=120)
    origin = models.CharField(max_length=16, choices=ModelOrigin.choices)
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="children")
    decoder_of = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="lent_decoder_to",
        help_text="The version whose VAE decoder stands beside the U-Net of `parent`.",
    )
    content_hash = models.CharField(max_length=64, unique=True)
    manifest = models.JSONField(help_text="Relative path -> sha256 and bytes.")
    config = models.JSONField(default=dict, help_text="Pipeline class, prediction type, scheduler, parameters.")
    image_size = models.PositiveIntegerField(help_text="Width and height it draws by default, in pixels.")
    has_alpha = models.BooleanField(default=False)
    byte_size = models.PositiveBigIntegerField(default=0)
    probe_image = models.CharField(max_length=64, blank=True, help_text="SHA-256 of the image drawn at import.")
    note = models.CharField(max_length=300, blank=True)
    licence = models.CharField(
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="What people say of it, an SPDX identifier where there is one; empty: not known.",
    )
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar = ModelVersionQuerySet.as_manager()

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.CheckConstraint(
                condition=Q(origin="imported") | Q(parent__isnull=False), name="model_trained_has_parent"
            ),
            models.CheckConstraint(
                condition=Q(origin="combined", decoder_of__isnull=False)
                | (~Q(origin="combined") & Q(decoder_of__isnull=True)),
                name="model_combined_has_decoder",
            ),
        ]

    def __str__(self) -> str:
        return f"v{self.number} {self.name}"

    def get_absolute_url(self) -> str:
        return reverse("model", args=[self.number])

    @property
    def folder(self) -> Path:
        """Where its files lie on the machine that draws or trains."""
        return Path(settings.MODELS_DIR) / self.content_hash

    @property
    def size_factor(self) -> int:
        """Width and height of an image must be multiples of this many pixels."""
        return int(self.config.get("size_factor", 8))

    @property
    def largest_side(self) -> int:
        """The largest width or height that may be asked for; far beyond its own size a model only repeats itself."""
        reach = self.config.get("largest_side") or 4 * self.image_size
        return int(min(reach, 4 * self.image_size))

    @property
    def is_flow(self) -> bool:
        """Whether it is a flow-matching model: drawn by its own scheduler, and trained on a velocity."""
        return self.family.is_flow

    @property
    def most_steps(self) -> int | None:
        """With how many steps an image can be drawn at most: none more than the schedule of its noise has timesteps. None for
        a flow, whose steps are points of a line."""
        if self.is_flow:
            return None
        return int((self.config.get("scheduler_config") or {}).get("num_train_timesteps", 1000))

    @property
    def family(self) -> Family:
        """The kind of pipeline that its folder holds; older rows do not say, when there was but one."""
        return FAMILIES[self.config.get("pipeline") or STABLE_DIFFUSION.pipeline]

    @property
    def takes_negative_prompts(self) -> bool:
        """Flux learned its guidance: it is no distance from another prompt."""
        return self.family is not FLUX


class ModelPromotion(models.Model):
    """Somebody's decision that a version is the one to use; the last row holds."""

    model_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="promotions")
    promoted_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    promoted_at = models.DateTimeField(db_default=Now())
    reason = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"Promotion of {self.model_version}"


class GenerationBatchQuerySet(models.QuerySet["GenerationBatch"]):
    def visible_to(self, user: "User") -> "GenerationBatchQuerySet":
        return self if user.is_superuser or user.has_role("curator", "operator", "auditor") else self.none()


class GenerationBatch(models.Model):
    """One request to draw k images for each prompt of a set. Its state is that of its job."""

    name = models.CharField(max_length=120)
    model_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="batches")
    prompt_set = models.ForeignKey(PromptSet, on_delete=models.PROTECT, related_name="batches")
    images_per_prompt = models.PositiveIntegerField(default=4)
    seed = models.PositiveBigIntegerField(default=0)
    steps = models.PositiveIntegerField(default=20)
    guidance = models.FloatField(default=4.0)
    scheduler = models.CharField(max_length=40, default="ddim")
    negative_prompt = models.CharField(max_length=1000, blank=True)
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    sample_count = models.PositiveIntegerField(help_text="Samples asked for: prompts times images of each.")
    job = models.OneToOneField(Job, on_delete=models.PROTECT, related_name="generation_batch")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar = GenerationBatchQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(images_per_prompt__gte=1), name="batch_draws_something"),
            models.CheckConstraint(condition=Q(steps__gte=1, steps__lte=1000), name="batch_steps_in_range"),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("batch", args=[self.pk])

    @property
    def is_complete(self) -> bool:
        return bool(self.job.state == JobState.SUCCEEDED)


class SampleQuerySet(models.QuerySet["Sample"]):
    def visible_to(self, user: "User") -> "SampleQuerySet":
        """Samples a person may browse. A rater sees samples only through assignments, which curation decides."""
        return self if user.is_superuser or user.has_role("curator", "operator", "auditor") else self.none()


class Sample(models.Model):
    """One image and everything needed to draw it again; the settings are those of its batch."""

    batch = models.ForeignKey(GenerationBatch, on_delete=models.PROTECT, related_name="samples")
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="samples")
    index = models.PositiveIntegerField(help_text="0 .. images_per_prompt - 1")
    seed = models.PositiveBigIntegerField()
    image = models.CharField(max_length=64, help_text="SHA-256 of the PNG file, which is also its name.")
    thumbnail = models.CharField(max_length=64, help_text="SHA-256 of the small WebP file.")
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    code_version = models.CharField(max_length=64, blank=True)
    drawn_at = models.DateTimeField(db_default=Now())

    objects: ClassVar = SampleQuerySet.as_manager()

    class Meta:
        ordering = ["batch", "prompt__position", "index"]
        indexes = [models.Index(fields=["image"], name="sample_image")]
        constraints = [
            models.UniqueConstraint(fields=["batch", "prompt", "index"], name="sample_drawn_once"),
            models.CheckConstraint(condition=Q(width__gt=0) & Q(height__gt=0), name="sample_has_size"),
        ]

    def __str__(self) -> str:
        return f"Sample {self.pk} of {self.batch_id}"

    def get_absolute_url(self) -> str:
        return reverse("sample", args=[self.pk])
