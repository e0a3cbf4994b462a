"""What we do with the judgments: recipes, runs with their checkpoints, and evaluations of what came out."""

from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.urls import reverse

from curation.models import Campaign, DatasetVersion
from generation.models import GenerationBatch, ModelVersion, PromptSet
from jobs.models import Job, JobState
from training.engine.buckets import is_address
from training.event_words import EventWords

if TYPE_CHECKING:
    from accounts.models import User


Row = TypeVar("Row", bound=models.Model)


class TeamQuerySet(models.QuerySet[Row]):
    """What the team sees and raters never do: who judges blind must not learn what was trained on what."""

    def visible_to(self, user: "User") -> Self:
        return self if user.is_superuser or user.has_role("curator", "operator", "auditor") else self.none()


class CorpusState(models.TextChoices):
    """How far a corpus is; what its jobs are at, of these, decides."""

    QUEUED = "queued", "Waiting"
    READING = "running", "Reading"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"
    READY = "ready", "Ready"
    CHANGED = "changed", "Changed since"


class Captions(models.TextChoices):
    """What becomes of a corpus's images by their captions, in the words of `training.engine.shards`."""

    NEEDED = "needed", "Leave images without a caption out"
    OPTIONAL = "optional", "Take them too, trained without words"
    IGNORED = "ignored", "Take all images, and no captions at all"


class Corpus(models.Model):
    """Images in tar shards, with captions or without, in a folder below CORPORA_ROOT, read where they lie.

    Its index is CORPORA_DIR/<id>.sqlite3, written once by `job`; `content_hash` is empty until then. `trouble` says what
    the last look at the shards found changed, and is empty where all is as it was.
    """

    slug = models.SlugField(max_length=80, unique=True)
    name = models.CharField(max_length=120)
    folder = models.CharField(max_length=500, help_text="Below CORPORA_ROOT; empty for the root itself.", blank=True)
    least_side = models.PositiveIntegerField(
        default=1, help_text="Images whose shorter side has fewer pixels are left out."
    )
    captions = models.CharField(
        max_length=12, choices=Captions.choices, default=Captions.NEEDED, db_default=Captions.NEEDED
    )
    job = models.OneToOneField(Job, on_delete=models.PROTECT, related_name="corpus")
    check_job = models.ForeignKey(
        Job, on_delete=models.PROTECT, null=True, blank=True, related_name="+", help_text="The last check of all bytes."
    )
    content_hash = models.CharField(max_length=64, blank=True)
    entry_count = models.PositiveIntegerField(default=0)
    uncaptioned_count = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Images that train with the empty caption."
    )
    shard_count = models.PositiveIntegerField(default=0)
    problem_count = models.PositiveIntegerField(default=0)
    sides = models.JSONField(default=list, help_text="[shorter side in pixels from, below or null, images], rising.")
    sizes = models.JSONField(
        default=list, help_text="[width, height, images]; of very many sizes, the like are counted as one."
    )
    samples = models.JSONField(
        default=list,
        help_text="A few images, spread over the corpus: name, caption, width, height, thumbnail's SHA-256.",
    )
    problems = models.JSONField(default=list, help_text="The first that were left out, as sentences.")
    checked_at = models.DateTimeField(null=True, blank=True, help_text="When all bytes were last read and compared.")
    trouble = models.CharField(max_length=500, blank=True)
    licence = models.CharField(
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="What people say of its images, an SPDX identifier where there is one; empty: not known.",
    )
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar = TeamQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "corpora"
        constraints = [
            models.CheckConstraint(
                condition=Q(content_hash="", entry_count=0) | (~Q(content_hash="") & Q(entry_count__gt=0)),
                name="corpus_indexed_with_images",
            ),
            models.CheckConstraint(
                condition=Q(uncaptioned_count=0)
                | ~Q(captions="needed") & Q(uncaptioned_count__lte=models.F("entry_count")),
                name="corpus_uncaptioned_as_asked",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("corpus", args=[self.slug])

    @property
    def place(self) -> str:
        """Its folder as people are shown it: with the address where it lies in a bucket."""
        root = str(settings.CORPORA_ROOT).rstrip("/")
        return f"{root}/{self.folder}".rstrip("/") if is_address(root) else self.folder or "."

    @property
    def state(self) -> CorpusState:
        if self.content_hash:
            return CorpusState.CHANGED if self.trouble else CorpusState.READY
        state = self.job.state
        return CorpusState.READING if state == JobState.SUCCEEDED else CorpusState(state)


class Preset(models.TextChoices):
    STYLE_TAILORING = "style_tailoring", "Style Tailoring"
    DOMAIN = "domain", "Domain alignment"
    SEQUENTIAL = "sequential", "Sequential"
    JOINT = "joint", "Joint"
    PROMPT = "prompt", "Prompt alignment"
    # Stored under its first name.
    SINGLE = "single", "Style alignment"
    PREFERENCE = "preference", "Preference"
    TRANSPARENCY = "transparency", "Transparency decoder"
    CUSTOM = "custom", "Own table"


class Recipe(models.Model):
    """A table of sources, each a row of (dataset version or corpus, band in log-SNR, weight), with optimizer settings.

    `hyperparameters` are fields of `training.engine.recipe.RunSettings`: those that a person chose, without sources and
    paths. A recipe never changes; another table is another recipe.
    """

    slug = models.SlugField(max_length=80, unique=True)
    name = models.CharField(max_length=120)
    preset = models.CharField(max_length=24, choices=Preset.choices)
    hyperparameters = models.JSONField(default=dict)
    then = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="+", help_text="The chain's next run."
    )
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar = TeamQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("recipe", args=[self.slug])


class RecipeSource(models.Model):
    """One row of the table; in a recipe of preference its dataset version holds pairs. A band holds log-SNR values l with log_snr_min <= l < log_snr_max; None is unbounded."""

    recipe = models.ForeignKey(Recipe, on_delete=models.CASCADE, related_name="sources")
    position = models.PositiveSmallIntegerField()
    name = models.SlugField(max_length=40)
    dataset_version = models.ForeignKey(
        DatasetVersion, on_delete=models.PROTECT, null=True, blank=True, related_name="recipe_sources"
    )
    corpus = models.ForeignKey(Corpus, on_delete=models.PROTECT, null=True, blank=True, related_name="recipe_sources")
    log_snr_min = models.FloatField(null=True, blank=True)
    log_snr_max = models.FloatField(null=True, blank=True)
    weight = models.FloatField(default=1.0)
    prompt_free = models.BooleanField(
        default=False, db_default=False, help_text="Trains with the empty caption, whatever captions its images have."
    )

    class Meta:
        ordering = ["recipe", "position"]
        constraints = [
            models.UniqueConstraint(fields=["recipe", "position"], name="recipe_source_position_once"),
            models.UniqueConstraint(fields=["recipe", "name"], name="recipe_source_name_once"),
            models.CheckConstraint(condition=Q(weight__gt=0), name="recipe_source_weight_positive"),
            models.CheckConstraint(
                condition=Q(dataset_version__isnull=True, corpus__isnull=False)
                | Q(dataset_version__isnull=False, corpus__isnull=True),
                name="recipe_source_has_one_origin",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def data(self) -> "DatasetVersion | Corpus":
        """What the row learns from."""
        data = self.dataset_version or self.corpus
        assert data is not None
        return data


class TrainingRun(models.Model):
    """One execution of a recipe on a parent version. Its state is that of its job; its folder is RUNS_DIR/<id>."""

    name = models.CharField(max_length=120)
    recipe = models.ForeignKey(Recipe, on_delete=models.PROTECT, related_name="runs")
    parent = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="runs")
    job = models.OneToOneField(Job, on_delete=models.PROTECT, related_name="training_run")
    previous = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="next", help_text="Of a chain of runs."
    )
    overrides = models.JSONField(
        default=dict, help_text="What this run and those after it take instead of the recipe's."
    )
    spec = models.JSONField(
        default=dict, help_text="run.json as the child process reads it, but for paths and sources."
    )
    step = models.PositiveIntegerField(default=0)
    total_steps = models.PositiveIntegerField()
    # Training is exact, so two runs of one recipe, parent and seed end in one version: weights are known by their hash.
    result = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, null=True, blank=True, related_name="made_by")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar = TeamQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(step__lte=models.F("total_steps")), name="run_step_within_total"),
            models.CheckConstraint(condition=Q(total_steps__gte=1), name="run_trains_something"),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("run", args=[self.pk])


class Checkpoint(models.Model):
    """A resumable state of a run, on disk below the run's folder."""

    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="checkpoints")
    step = models.PositiveIntegerField()
    manifest_hash = models.CharField(max_length=64)
    byte_size = models.PositiveBigIntegerField(default=0)
    kept = models.BooleanField(default=True, help_text="Still on disk; older ones make room for newer ones.")
    saved_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["run", "-step"]
        constraints = [models.UniqueConstraint(fields=["run", "step"], name="checkpoint_once_a_step")]

    def __str__(self) -> str:
        return f"Step {self.step} of run {self.run_id}"


class RunMetric(models.Model):
    """The figures of one step: loss, loss by source and band, learning rate, gradient norm, images a second."""

    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="metrics")
    step = models.PositiveIntegerField()
    values = models.JSONField()

    class Meta:
        ordering = ["run", "step"]
        constraints = [models.UniqueConstraint(fields=["run", "step"], name="run_metric_once_a_step")]

    def __str__(self) -> str:
        return f"Step {self.step} of run {self.run_id}"


class RunEvent(EventWords, models.Model):
    """What the trainer said of itself, in order: started, resumed, checkpoint saved, validated, finished."""

    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="events")
    position = models.PositiveIntegerField(help_text="The line in the run's events.jsonl.")
    kind = models.CharField(max_length=40)
    step = models.PositiveIntegerField(default=0)
    detail = models.JSONField(default=dict)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["run", "position"]
        constraints = [models.UniqueConstraint(fields=["run", "position"], name="run_event_once")]

    def __str__(self) -> str:
        return f"{self.kind} at step {self.step} of run {self.run_id}"


class RunSample(models.Model):
    """An image drawn through training on a fixed prompt and seed; step 0 is the parent's."""

    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="samples")
    step = models.PositiveIntegerField()
    position = models.PositiveSmallIntegerField()
    prompt = models.CharField(max_length=1000)
    seed = models.PositiveBigIntegerField()
    image = models.CharField(max_length=64, help_text="SHA-256 of the PNG file.")
    thumbnail = models.CharField(max_length=64, help_text="SHA-256 of the small WebP file.")

    class Meta:
        ordering = ["run", "step", "position"]
        constraints = [models.UniqueConstraint(fields=["run", "step", "position"], name="run_sample_once")]

    def __str__(self) -> str:
        return f"{self.prompt} at step {self.step}"


class Shown(models.TextChoices):
    """What raters see side by side."""

    PAIRS = "pairs", "Two images"
    ONE_PROMPT = "one-prompt", "Two sets of one prompt"
    MANY_PROMPTS = "many-prompts", "Two sets of many prompts"


class Evaluation(models.Model):
    """Two versions on one prompt set with the same seeds: drawn, measured, and judged side by side, blind."""

    name = models.CharField(max_length=120)
    baseline = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    candidate = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="evaluations")
    prompt_set = models.ForeignKey(PromptSet, on_delete=models.PROTECT, related_name="+")
    # Several evaluations may show what was drawn once.
    baseline_batch = models.ForeignKey(GenerationBatch, on_delete=models.PROTECT, related_name="+")
    candidate_batch = models.ForeignKey(GenerationBatch, on_delete=models.PROTECT, related_name="+")
    shown = models.CharField(max_length=16, choices=Shown.choices, default=Shown.PAIRS, db_default=Shown.PAIRS)
    set_size = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Images of a set; 0 where two images are compared."
    )
    further = models.JSONField(
        default=list, db_default=[], help_text="Questions that are asked after the one that decides."
    )
    campaign = models.OneToOneField(
        Campaign, on_delete=models.PROTECT, null=True, blank=True, related_name="evaluation"
    )
    job = models.OneToOneField(Job, on_delete=models.PROTECT, related_name="evaluation")
    overlap = models.PositiveSmallIntegerField(default=1)
    max_overlap = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        help_text="Judgments at most, of a pair that is not decided; empty is as many as of each.",
    )
    raters = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="+", blank=True)
    metrics = models.JSONField(default=dict, help_text="Automatic metrics of both, with every image's score.")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar = TeamQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=~Q(baseline=models.F("candidate")), name="evaluation_compares_two_versions"
            ),
            models.CheckConstraint(
                condition=Q(max_overlap=None) | Q(max_overlap__gte=models.F("overlap")),
                name="evaluation_max_overlap_in_range",
            ),
            models.CheckConstraint(
                condition=Q(shown="pairs", set_size=0) | (~Q(shown="pairs") & Q(set_size__in=[4, 9, 16])),
                name="evaluation_sets_have_size",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("evaluation", args=[self.pk])

    @property
    def compares_sets(self) -> bool:
        """Whether raters see sets, and say which is more varied."""
        return self.shown != Shown.PAIRS
