"""What people ask of evaluations: two versions, prompts and raters, and to promote the better one."""

import uuid
from typing import Any

from django import forms

from accounts.models import Role, User
from curation.campaign_forms import RaterField, max_overlap_field, why_not_at_most
from curation.sets import SIZES, USUAL_SIZE
from generation.models import ModelVersion, PromptSet
from training.comparisons import MOST_FURTHER
from training.evaluation_sets import MOST_SETS
from training.models import Shown
from training.run_forms import PromptSetField

PAIRS_ALONE, SETS_ALONE = ("images_per_prompt",), ("set_size", "sets")
SHOWN = [
    (Shown.PAIRS.value, "Two images of one prompt: which is better?"),
    (Shown.ONE_PROMPT.value, "Two sets of one prompt, drawn from many seeds: which is more varied?"),
    (Shown.MANY_PROMPTS.value, "Two sets of many prompts, an image of each: which is more varied?"),
]


class EvaluationForm(forms.Form):
    """Two versions, the prompts they draw, and who judges."""

    request_key = forms.UUIDField(widget=forms.HiddenInput, required=False)
    baseline = forms.ModelChoiceField(queryset=ModelVersion.objects.none(), help_text="The version to beat.")
    candidate = forms.ModelChoiceField(
        queryset=ModelVersion.objects.none(), help_text="The version that wants to be used."
    )
    prompt_set = PromptSetField(
        queryset=PromptSet.objects.none(), help_text="Prompts that the candidate was not trained on say most."
    )
    shown = forms.ChoiceField(
        choices=SHOWN,
        initial=Shown.PAIRS,
        required=False,
        widget=forms.RadioSelect,
        label="What raters see side by side",
        help_text="A single image cannot show how varied a version draws; a set can.",
    )
    images_per_prompt = forms.IntegerField(
        min_value=1,
        max_value=16,
        initial=1,
        label="Images for each prompt",
    )
    set_size = forms.TypedChoiceField(
        choices=[(size, f"{size}") for size in SIZES],
        coerce=int,
        initial=USUAL_SIZE,
        label="Images of a set",
    )
    sets = forms.IntegerField(
        min_value=1,
        max_value=MOST_SETS,
        initial=1,
        label="Sets of each prompt, or of each group of prompts",
        help_text="A set of one prompt takes as many seeds as it has images; what fills no whole set is drawn and not judged.",
    )
    seed = forms.IntegerField(
        min_value=0, max_value=2**32 - 1, initial=0, help_text="Both versions draw from the same noise."
    )
    steps = forms.IntegerField(min_value=1, max_value=1000, initial=20, label="Drawing steps")
    guidance = forms.FloatField(min_value=0, max_value=50, initial=4)
    raters = RaterField(
        help_text="They see two stickers or sets side by side, without names, in an order drawn for each of them.",
    )
    overlap = forms.IntegerField(min_value=1, max_value=25, initial=1, label="Judgments of each pair")
    max_overlap = max_overlap_field("a pair")
    further = forms.CharField(
        max_length=1000,
        required=False,
        label="Further questions",
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=f"Up to {MOST_FURTHER} more questions about the same two, one a line, such as “Which one is closer to our style?”. The "
        "verdict is that of the first.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["baseline"].queryset = ModelVersion.objects.all()  # type: ignore[attr-defined]
        self.fields["candidate"].queryset = ModelVersion.objects.all()  # type: ignore[attr-defined]
        self.fields["prompt_set"].queryset = PromptSet.objects.latest_versions()  # type: ignore[attr-defined]
        self.fields["raters"].queryset = User.objects.with_role(Role.RATER).order_by("email")  # type: ignore[attr-defined]
        self.fields["request_key"].initial = uuid.uuid4
        for name in self._unasked():
            self.fields[name].required = False

    def _unasked(self) -> tuple[str, ...]:
        """The fields that what was sent has no use for."""
        if not self.is_bound:
            return ()
        return SETS_ALONE if self.data.get("shown") in ("", None, Shown.PAIRS) else PAIRS_ALONE

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        cleaned["shown"] = Shown(cleaned.get("shown") or Shown.PAIRS)
        for name in self._unasked():
            self.errors.pop(name, None)
            cleaned[name] = self.fields[name].initial
        if cleaned.get("baseline") and cleaned.get("baseline") == cleaned.get("candidate"):
            self.add_error("candidate", "Choose two different versions.")
        cleaned["further"] = [
            " ".join(line.split()) for line in cleaned.get("further", "").splitlines() if line.strip()
        ]
        raters, overlap = cleaned.get("raters"), cleaned.get("overlap")
        if raters is not None and overlap and overlap > len(raters):
            self.add_error("overlap", f"{overlap} judgments of each pair need at least {overlap} raters.")
        most = cleaned.get("max_overlap")
        if refusal := why_not_at_most(cleaned, "each pair"):
            self.add_error("max_overlap", refusal)
        elif raters is not None and most and most > len(raters):
            self.add_error("max_overlap", f"Up to {most} judgments of a pair need at least {most} raters.")
        return cleaned


class PromotionForm(forms.Form):
    reason = forms.CharField(max_length=300, widget=forms.Textarea(attrs={"rows": 2}), label="Why")
