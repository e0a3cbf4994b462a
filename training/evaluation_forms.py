"""What people ask of evaluations: two versions, prompts and raters, and to promote the better one."""

import uuid
from typing import Any

from django import forms

from accounts.models import Role, User
from curation.campaign_forms import RaterField
from generation.models import ModelVersion, PromptSet
from training.run_forms import PromptSetField


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
    images_per_prompt = forms.IntegerField(min_value=1, max_value=16, initial=1, label="Images for each prompt")
    seed = forms.IntegerField(
        min_value=0, max_value=2**32 - 1, initial=0, help_text="Both versions draw from the same noise."
    )
    steps = forms.IntegerField(min_value=1, max_value=1000, initial=20, label="Drawing steps")
    guidance = forms.FloatField(min_value=0, max_value=50, initial=4)
    raters = RaterField(
        help_text="They see two stickers side by side, without names, in an order drawn for each of them.",
    )
    overlap = forms.IntegerField(min_value=1, max_value=25, initial=1, label="Judgments of each pair")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["baseline"].queryset = ModelVersion.objects.all()  # type: ignore[attr-defined]
        self.fields["candidate"].queryset = ModelVersion.objects.all()  # type: ignore[attr-defined]
        self.fields["prompt_set"].queryset = PromptSet.objects.latest_versions()  # type: ignore[attr-defined]
        self.fields["raters"].queryset = User.objects.with_role(Role.RATER).order_by("email")  # type: ignore[attr-defined]
        self.fields["request_key"].initial = uuid.uuid4

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("baseline") and cleaned.get("baseline") == cleaned.get("candidate"):
            self.add_error("candidate", "Choose two different versions.")
        raters, overlap = cleaned.get("raters"), cleaned.get("overlap")
        if raters is not None and overlap and overlap > len(raters):
            self.add_error("overlap", f"{overlap} judgments of each pair need at least {overlap} raters.")
        return cleaned


class PromotionForm(forms.Form):
    reason = forms.CharField(max_length=300, widget=forms.Textarea(attrs={"rows": 2}), label="Why")
