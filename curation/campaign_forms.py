"""What people ask of campaigns: to set one up, and to change its raters, rule and order."""

from typing import Any

from django import forms
from django.db.models import QuerySet

from accounts.checks import Checks
from accounts.models import Role, User
from curation.campaigns import (
    MAX_ITEMS,
    MAX_ITEMS_ONE_BY_ONE,
    CampaignRefused,
    create_campaign,
    create_pick_campaign,
    set_raters,
)
from curation.models import (
    Campaign,
    CampaignKind,
    ItemOrder,
)
from curation.order import FURTHEST, Order, set_order
from curation.recounts import set_rule
from curation.rubrics import GUIDELINES, QuestionSpec, default_questions
from curation.rules import THRESHOLDS, Rule, RuleKind, RuleRefused, make_rule, read_rule
from generation.models import GenerationBatch
from jobs.models import Job

USUAL_THRESHOLD = 0.9
KINDS = [
    (CampaignKind.ALIGNMENT.value, "Alignment: does the sticker show what the prompt says? One key for each sticker."),
    (CampaignKind.STYLE.value, "Style: three questions for experts, on drawing, prompt and house style."),
]
PICK = (
    CampaignKind.PICK.value,
    "Pick: experts choose the best of each prompt’s samples, several or none. Each prompt is one item.",
)


class RaterField(forms.ModelMultipleChoiceField):  # type: ignore[type-arg]
    """Active people who have the role rater."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(queryset=User.objects.none(), widget=Checks, **kwargs)

    def label_from_instance(self, obj: Any) -> str:
        return f"{obj.name} ({obj.email})" if obj.name else str(obj.email)

    def offer(self, people: QuerySet[User]) -> None:
        """Let these be chosen. They are read at once: by themselves such fields take a cursor of the server's, three times."""
        self.queryset = people
        self.choices = [(person.pk, self.label_from_instance(person)) for person in people.only("name", "email")]


def people_who_rate() -> QuerySet[User]:
    """The choices of a RaterField."""
    return User.objects.with_role(Role.RATER).order_by("name", "email")


def rule_field(*, required: bool = False) -> forms.ChoiceField:
    """How judgments become a verdict."""
    return forms.ChoiceField(
        required=required,
        # What picks are decided by is not chosen.
        choices=[choice for choice in RuleKind.choices if choice[0] != RuleKind.HALF],
        initial=RuleKind.MAJORITY,
        widget=forms.RadioSelect,
        label="What a verdict needs",
        help_text="Of an item's judgments. The model weighs each rater by how often they seem to be right over the whole "
        "campaign; it needs two judgments of each item, and is estimated now and then. What a rule does not decide is split.",
    )


def threshold_field() -> forms.FloatField:
    """How likely is likely enough; empty is as usual."""
    return forms.FloatField(
        required=False,
        min_value=THRESHOLDS[0],
        max_value=THRESHOLDS[1],
        initial=USUAL_THRESHOLD,
        label="Likely enough, by the model",
        widget=forms.NumberInput(attrs={"step": "0.01"}),
        help_text=f"{THRESHOLDS[0]} to {THRESHOLDS[1]}. The other rules do without.",
    )


def chosen_rule(asked: dict[str, Any]) -> Rule:
    """The rule of a form that has both fields and is valid."""
    return make_rule(asked["rule"] or RuleKind.MAJORITY, asked["threshold"] or USUAL_THRESHOLD)


def max_overlap_field(one: str) -> forms.IntegerField:
    """How many judgments what is not decided may get; `one` is what is judged, in words."""
    return forms.IntegerField(
        required=False,
        min_value=1,
        max_value=25,
        label="At most, where they disagree",
        help_text=f"Left empty: no more than that. Otherwise {one} is handed out again, to one rater at a time, while more "
        "judgments could change its verdict, up to so many.",
    )


def why_not_at_most(asked: dict[str, Any], each: str) -> str:
    """What is wrong with `max_overlap` beside `overlap`, as a sentence; empty where nothing is."""
    overlap, most = asked.get("overlap"), asked.get("max_overlap")
    if overlap and most and most < overlap:
        return f"At most has to be {overlap} or more, as {each} gets so many."
    return ""


ORDERS = [
    (ItemOrder.POSITION.value, "As set up: every prompt once, before any comes again."),
    (ItemOrder.RANDOM.value, "Mixed, the same for all raters."),
    (ItemOrder.LEAST.value, "Least judged first. What a rater has on screen counts as judged."),
    (
        ItemOrder.CLOSEST.value,
        "Closest votes first: what raters contradict each other about, then what nobody has judged, then what all agree about.",
    ),
]


BY_SCORE = [
    (ItemOrder.LOWEST.value, "Lowest score first."),
    (ItemOrder.HIGHEST.value, "Highest score first."),
    (ItemOrder.UNCERTAIN.value, "Most uncertain first: what has the score nearest to the one below."),
]


def order_field(*, required: bool = False) -> forms.ChoiceField:
    """In which order items are handed out."""
    return forms.ChoiceField(
        required=required,
        choices=ORDERS,
        initial=ItemOrder.POSITION,
        widget=forms.RadioSelect,
        label="What is handed out first",
        help_text="It can be changed later. Every item gets its judgments in any order, if the work goes on to the end.",
    )


def turns_field() -> forms.BooleanField:
    """Whether buckets take turns."""
    return forms.BooleanField(
        required=False,
        label="Take turns between buckets",
        help_text="An item of each bucket, then the next of each, so that all buckets fill evenly.",
    )


def chosen_order(asked: dict[str, Any]) -> Order:
    """The order of a form that has both fields and is valid."""
    return Order(ItemOrder(asked["item_order"] or ItemOrder.POSITION), asked["by_bucket"])


class CampaignForm(forms.Form):
    """A campaign about the samples of one or more batches."""

    kind = forms.ChoiceField(choices=[*KINDS, PICK], widget=forms.RadioSelect, initial=CampaignKind.ALIGNMENT)
    name = forms.CharField(max_length=120, help_text="Raters see it above their work.")
    batches = forms.ModelMultipleChoiceField(
        GenerationBatch.objects.none(),
        widget=forms.CheckboxSelectMultiple,
        help_text="Every sample drawn so far becomes one item, or for a pick every prompt with 2 to 9 samples: at most "
        f"{MAX_ITEMS:,} items, of a pick {MAX_ITEMS_ONE_BY_ONE:,}.",
        error_messages={"required": "Choose at least one batch to judge."},
    )
    overlap = forms.IntegerField(
        min_value=1, max_value=25, initial=2, label="Judgments for each item", help_text="By different raters; 1 to 25."
    )
    max_overlap = max_overlap_field("an item")
    rule = rule_field()
    threshold = threshold_field()
    item_order = order_field()
    by_bucket = turns_field()
    raters = RaterField(required=False, help_text="They can be changed later.")
    guidelines = forms.CharField(
        required=False,
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 10}),
        help_text="Markdown, shown beside the work. Left empty, the usual guidelines of the kind are taken.",
    )
    open_now = forms.BooleanField(required=False, initial=True, label="Open it at once")

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        drawn = GenerationBatch.objects.visible_to(user).filter(samples__isnull=False).distinct()
        self.fields["batches"].queryset = drawn.order_by("-pk")[:200]  # type: ignore[attr-defined]
        if self.is_bound:
            self.fields["batches"].queryset = drawn  # type: ignore[attr-defined]
        self.fields["raters"].offer(people_who_rate())  # type: ignore[attr-defined]

    def clean_batches(self) -> Any:
        batches = self.cleaned_data["batches"].select_related("job")
        drawing = [str(batch) for batch in batches if batch.job.is_open]
        if drawing:
            raise forms.ValidationError(f"Still drawing: {', '.join(drawing)}. Wait until it is done, or cancel it.")
        return batches

    def clean(self) -> dict[str, Any]:
        asked = super().clean() or {}
        if refusal := why_not_at_most(asked, "each item"):
            self.add_error("max_overlap", refusal)
        if asked.get("kind") == CampaignKind.PICK and asked.get("max_overlap"):
            self.add_error(
                "max_overlap", "An item of a pick gets the same number of judgments whatever they say: leave it empty."
            )
        return asked

    def create(self, by: User, questions: list[QuestionSpec] | None = None) -> Campaign | None:
        """The campaign; None with an error on the form where it was refused."""
        asked = self.cleaned_data
        try:
            if asked["kind"] == CampaignKind.PICK:
                return create_pick_campaign(
                    asked["name"],
                    by=by,
                    batches=asked["batches"],
                    overlap=asked["overlap"],
                    order=chosen_order(asked),
                    raters=asked["raters"],
                    guidelines=asked["guidelines"].strip() or GUIDELINES[CampaignKind.PICK],
                    open_now=asked["open_now"],
                )
            return create_campaign(
                asked["kind"],
                name=asked["name"],
                by=by,
                batches=asked["batches"],
                overlap=asked["overlap"],
                max_overlap=asked["max_overlap"],
                rule=chosen_rule(asked),
                order=chosen_order(asked),
                raters=asked["raters"],
                guidelines=asked["guidelines"].strip() or GUIDELINES[asked["kind"]],
                questions=questions,
                open_now=asked["open_now"],
            )
        except CampaignRefused as refused:
            self.add_error(None, refused.args[0])
            return None


class ReasonsForm(forms.Form):
    """What raters of a new campaign may give as the reason of a fail: a field of plain lines for each question of each kind."""

    needs_reason = forms.BooleanField(
        required=False, label="Ask for a reason with every fail", help_text="A fail without one is then not taken."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for kind, _ in KINDS:
            for question in default_questions(kind):
                self.fields[f"reasons_{kind}_{question['name']}"] = forms.CharField(
                    required=False,
                    max_length=1000,
                    label=question["text"],
                    initial="\n".join(question.get("reasons", [])),
                    widget=forms.Textarea(attrs={"rows": 6 if kind == CampaignKind.ALIGNMENT else 4}),
                    strip=False,
                )

    def groups(self) -> list[tuple[str, list[forms.BoundField]]]:
        """(kind, its fields)."""
        return [
            (kind, [self[name] for name in self.fields if name.startswith(f"reasons_{kind}_")]) for kind, _ in KINDS
        ]

    def rubric(self, kind: str) -> list[QuestionSpec]:
        """The usual questions of the kind with these reasons; a question without any asks for none."""
        if kind == CampaignKind.PICK:
            return []
        rubric = []
        for question in default_questions(kind):
            name = f"reasons_{kind}_{question['name']}"
            reasons = question.get("reasons", [])
            if name in self.data:
                reasons = [" ".join(line.split()) for line in self.cleaned_data[name].splitlines() if line.strip()]
            asks = bool(reasons) and self.cleaned_data["needs_reason"]
            rubric.append(QuestionSpec(**{**question, "reasons": reasons, "needs_reason": asks}))
        return rubric


class RatersForm(forms.Form):
    """Who rates in a campaign."""

    raters = RaterField(required=False, help_text="Who leaves keeps their judgments.")

    def __init__(self, *args: Any, campaign: Campaign, **kwargs: Any) -> None:
        """`initial` says who rates now: whoever shows the form has read that already."""
        super().__init__(*args, **kwargs)
        self.campaign = campaign
        self.fields["raters"].offer(people_who_rate())  # type: ignore[attr-defined]

    def save(self, by: User) -> None:
        set_raters(self.campaign, self.cleaned_data["raters"], by=by)


class RuleForm(forms.Form):
    """By which rule a campaign's judgments become verdicts."""

    rule = rule_field(required=True)
    threshold = threshold_field()

    def __init__(self, *args: Any, campaign: Campaign, **kwargs: Any) -> None:
        now = read_rule(campaign.rule)
        kwargs.setdefault("initial", {"rule": now.kind, "threshold": now.threshold or USUAL_THRESHOLD})
        super().__init__(*args, **kwargs)
        self.campaign = campaign

    def save(self, by: User) -> bool:
        """Whether it was taken; an error is on the form where it was refused."""
        try:
            set_rule(self.campaign, chosen_rule(self.cleaned_data), by=by)
        except RuleRefused as refused:
            self.add_error(None, refused.args[0])
            return False
        return True


class OrderForm(forms.Form):
    """In which order a campaign's items are handed out."""

    item_order = order_field(required=True)
    score_threshold = forms.FloatField(
        required=False,
        min_value=-FURTHEST,
        max_value=FURTHEST,
        label="The most uncertain score",
        help_text="Where the model is of two minds, often halfway between its lowest and highest. The other orders do without.",
    )
    by_bucket = turns_field()

    def __init__(self, *args: Any, campaign: Campaign, **kwargs: Any) -> None:
        now = {name: getattr(campaign, name) for name in ("item_order", "by_bucket", "score_threshold")}
        kwargs.setdefault("initial", now)
        super().__init__(*args, **kwargs)
        self.campaign = campaign
        if campaign.score_name:
            self.fields["item_order"].choices = [*ORDERS, *BY_SCORE]  # type: ignore[attr-defined]
        else:
            del self.fields["score_threshold"]

    def clean(self) -> dict[str, Any]:
        asked = super().clean() or {}
        threshold = asked.get("score_threshold")
        if asked.get("item_order") != ItemOrder.UNCERTAIN:
            self.errors.pop("score_threshold", None)
        elif threshold is None and "score_threshold" not in self.errors:
            self.add_error("score_threshold", "Say at which score the model is most uncertain.")
        return asked

    def save(self, by: User) -> Job | None:
        """The job that puts the items in order, where that takes one."""
        order = chosen_order(self.cleaned_data)
        if order.kind == ItemOrder.UNCERTAIN:
            order = order._replace(threshold=self.cleaned_data["score_threshold"])
        return set_order(self.campaign, order, by=by)
