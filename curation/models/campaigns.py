"""A campaign: what is asked, of whom, with which guidelines."""

from typing import TYPE_CHECKING, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.urls import reverse

from jobs.models import Job

if TYPE_CHECKING:
    from accounts.models import User


class CampaignKind(models.TextChoices):
    ALIGNMENT = "alignment", "Alignment"
    STYLE = "style", "Style"
    PICK = "pick", "Pick"
    COMPARE = "compare", "Compare"
    SETS = "sets", "Sets"


# Of a baseline and a candidate, side by side and blind.
COMPARISONS = (CampaignKind.COMPARE, CampaignKind.SETS)


class CampaignState(models.TextChoices):
    DRAFT = "draft", "Draft"
    OPEN = "open", "Open"
    PAUSED = "paused", "Paused"
    CLOSED = "closed", "Closed"


class ItemOrder(models.TextChoices):
    """Which items are handed out first."""

    POSITION = "position", "As set up"
    RANDOM = "random", "Mixed"
    LEAST = "least", "Least judged first"
    CLOSEST = "closest", "Closest votes first"
    LOWEST = "lowest", "Lowest score first"
    HIGHEST = "highest", "Highest score first"
    UNCERTAIN = "uncertain", "Most uncertain first"


# What needs a score of each item, given by a model before the campaign opened (curation.scores).
SCORE_ORDERS = (ItemOrder.LOWEST, ItemOrder.HIGHEST, ItemOrder.UNCERTAIN)


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
    max_overlap = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        help_text="Judgments wanted at most, of an item that is not decided; empty is as many as of each.",
    )
    rule = models.CharField(
        max_length=32, default="majority", db_default="majority", help_text="How judgments become a verdict."
    )
    recounted_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="When all verdicts were last counted anew, and with them what an estimated rule knows of the raters.",
    )
    recounted_judgments = models.PositiveBigIntegerField(
        default=0, db_default=0, help_text="How many judgments had come by then; how many more is news to an estimate."
    )
    recount_job = models.ForeignKey(Job, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    item_order = models.CharField(
        max_length=16, choices=ItemOrder.choices, default=ItemOrder.POSITION, db_default=ItemOrder.POSITION
    )
    by_bucket = models.BooleanField(
        default=False, db_default=False, help_text="Whether buckets take turns, so that they fill evenly."
    )
    order_seed = models.PositiveIntegerField(
        default=0, db_default=0, help_text="What the mixed order was drawn from; the same gives the same order."
    )
    many_prompts = models.BooleanField(
        default=False, db_default=False, help_text="Of sets: whether the pictures of a set show different prompts."
    )
    score_name = models.CharField(
        max_length=120,
        blank=True,
        default="",
        db_default="",
        help_text="What its items' scores are; empty without any.",
    )
    score_threshold = models.FloatField(
        null=True, blank=True, help_text="The score at which the model is of two minds: the most uncertain are nearest."
    )
    lease_seconds = models.PositiveIntegerField(default=1800)
    guidelines = models.TextField(blank=True, help_text="Markdown, shown beside the work.")
    gold_percent = models.PositiveSmallIntegerField(
        default=10, help_text="How much of what a rater gets is gold, in percent; 0 to 50."
    )
    probe_percent = models.PositiveSmallIntegerField(
        default=0,
        db_default=0,
        help_text="How much of what a rater gets they judged before (curation.probes), in percent; 0 to 10.",
    )
    qualification_items = models.PositiveSmallIntegerField(
        default=0, help_text="Gold items that a rater gets before any other; 0 for none."
    )
    qualification_percent = models.PositiveSmallIntegerField(
        default=80, help_text="How many of those must be right, in percent."
    )
    pause_window = models.PositiveSmallIntegerField(
        default=0,
        help_text="After each so many gold items the search for a rater's decline begins once more; 0 to pause nobody.",
    )
    pause_percent = models.PositiveSmallIntegerField(
        default=70, help_text="A rater who is proved to be below this, in percent, is paused."
    )
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    opened_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar = CampaignQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(overlap__gte=1, overlap__lte=25), name="campaign_overlap_in_range"),
            models.CheckConstraint(
                condition=Q(max_overlap=None) | Q(max_overlap__gte=F("overlap"), max_overlap__lte=25),
                name="campaign_max_overlap_in_range",
            ),
            models.CheckConstraint(condition=Q(lease_seconds__gte=10), name="campaign_lease_long_enough"),
            models.CheckConstraint(condition=Q(gold_percent__lte=50), name="campaign_gold_at_most_half"),
            models.CheckConstraint(condition=Q(probe_percent__lte=10), name="campaign_probes_at_most_a_tenth"),
            models.CheckConstraint(
                condition=Q(qualification_items__lte=50, qualification_percent__gte=1, qualification_percent__lte=100),
                name="campaign_qualification_in_range",
            ),
            models.CheckConstraint(
                condition=(Q(pause_window=0) | Q(pause_window__gte=5, pause_window__lte=100))
                & Q(pause_percent__gte=1, pause_percent__lte=100),
                name="campaign_pause_in_range",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("campaign", args=[self.slug])

    @property
    def most(self) -> int:
        """How many judgments an item gets at most."""
        return self.max_overlap or self.overlap

    @property
    def compares(self) -> bool:
        """Whether its items are of a baseline and a candidate, side by side, and not single samples."""
        return self.kind in COMPARISONS

    @property
    def takes_examples(self) -> bool:
        """Whether its guidelines may show examples: two sets are too many stickers for one."""
        return self.kind != CampaignKind.SETS


class CampaignEvent(models.Model):
    """What happened to a campaign, in order; rows are only added."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=32)  # created, opened, paused, closed, raters, gold, rule, order, ...
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    at = models.DateTimeField(db_default=Now())
    detail = models.JSONField(default=dict)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.kind} of {self.campaign_id}"


class RaterState(models.TextChoices):
    QUALIFYING = "qualifying", "In qualification"
    RATING = "rating", "Rating"
    UNQUALIFIED = "unqualified", "Did not qualify"
    PAUSED = "paused", "Paused"


class CampaignRater(models.Model):
    """A person's place among a campaign's raters; leaving keeps the row."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="memberships")
    rater = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="memberships")
    joined_at = models.DateTimeField(db_default=Now())
    removed_at = models.DateTimeField(null=True, blank=True)
    state = models.CharField(max_length=16, choices=RaterState.choices, default=RaterState.RATING)
    measure = models.JSONField(
        default=dict,
        help_text="What the state rests on: gold items right, of how many, and how many percent were asked for.",
    )
    measured_since = models.DateTimeField(
        null=True, blank=True, help_text="Only gold answers that came in later count towards a round or a pause."
    )
    qualified_at = models.DateTimeField(null=True, blank=True)
    handed_out = models.PositiveIntegerField(
        default=0,
        help_text="Items handed to this rater since the campaign has gold or probes; says when the next of these comes.",
    )
    guidelines_read = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="The revision up to which the rater knows what changed; none before the first lease.",
    )
    questions_read = models.PositiveIntegerField(
        null=True, blank=True, help_text="The same of the questions; none before the first lease."
    )
    examples_passed = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text="The revision up to which the rater passed the examples of the guidelines that it asks first; 0 for none.",
    )
    excluded = models.BooleanField(
        default=False, db_default=False, help_text="A curator excluded this rater's judgments here: they do not count."
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["campaign", "rater"], name="campaign_rater_once")]

    def __str__(self) -> str:
        return f"{self.rater_id} in {self.campaign_id}"


class RaterExclusion(models.Model):
    """A curator's word that a rater's judgments in a campaign do not count, or count again; rows are only added. The newest
    says what `CampaignRater.excluded` says."""

    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="exclusions")
    rater = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    excluded = models.BooleanField(help_text="Whether they are excluded from then on, or taken in again.")
    reason = models.CharField(max_length=300)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["campaign", "rater", "-id"], name="exclusion_newest")]
        constraints = [models.CheckConstraint(condition=~Q(reason=""), name="exclusion_has_reason")]

    def __str__(self) -> str:
        return self.reason


class Mark(models.TextChoices):
    """What a rater may mark to show where a fail lies."""

    NOTHING = "", "Nothing"
    WORDS = "words", "Words of the prompt"
    POINT = "point", "A place in the picture"


class Question(models.Model):
    """One question of a campaign's rubric, as its newest revision has it. `choices`: [{"value", "label", "key", "accepts"}], keys single characters or
    names such as ArrowLeft; a choice that accepts counts towards a pass. `reasons`: what may be given as the reason of a
    choice that does not, in the order of the digits that name them."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="questions")
    position = models.PositiveSmallIntegerField()
    name = models.SlugField(max_length=60)
    text = models.CharField(max_length=200)
    help = models.CharField(max_length=300, blank=True, default="", db_default="", help_text="A sentence below it.")
    choices = models.JSONField()
    required = models.BooleanField(default=True)
    multiple = models.BooleanField(
        default=False, help_text="Whether several choices that accept may be given together."
    )
    reasons = models.JSONField(default=list, blank=True)
    needs_reason = models.BooleanField(default=False, help_text="Whether a fail without a reason is refused.")
    marks = models.CharField(max_length=8, choices=Mark.choices, default=Mark.NOTHING, blank=True)

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

    def takes(self, value: str) -> bool:
        """Whether this is an answer: one of the choices, or of `multiple` several that accept, in their order, joined by +."""
        if not self.multiple or value in self.values:
            return value in self.values
        places = [choice["value"] for choice in self.choices if choice["accepts"]]
        given = value.split("+")
        return given == [place for place in places if place in given]

    def is_fail(self, value: str) -> bool:
        """Whether this choice speaks against the item; where no choice accepts, none does."""
        accepts = {choice["value"] for choice in self.choices if choice["accepts"]}
        return bool(accepts) and value not in accepts


class QuestionRevision(models.Model):
    """The questions as they once read, each as curation.questions keeps it. The newest says what the campaign's questions say;
    rows are only added."""

    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="question_revisions")
    number = models.PositiveIntegerField(help_text="From 1 on, in each campaign.")
    questions = models.JSONField()
    change = models.CharField(max_length=200, help_text="What it changed, in a sentence.")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["campaign", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "number"], name="question_revision_once"),
            models.CheckConstraint(condition=Q(number__gte=1), name="question_revision_from_one"),
        ]

    def __str__(self) -> str:
        return f"Revision {self.number} of the questions"


class Estimate(models.Model):
    """What Dawid and Skene's model last found of a campaign's raters by one question (curation.estimates): the answers, their
    shares of the truth, and a table a rater."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="estimates", db_index=False)
    question = models.CharField(max_length=60)
    answers = models.JSONField(help_text="What was answered; sides of a comparison are baseline and candidate.")
    shares = models.JSONField(help_text="How often each of them is the true one.")
    tables = models.JSONField(help_text="Rater id -> for each truth, how often the rater gives each answer.")
    usual = models.JSONField(help_text="The same of the raters together, weighed by their judgments.")
    items = models.PositiveIntegerField(help_text="Of how many items.")

    class Meta:
        # The constraint is its index.
        constraints = [models.UniqueConstraint(fields=["campaign", "question"], name="estimate_once")]

    def __str__(self) -> str:
        return f"{self.question} of {self.campaign_id}"
