"""What people ask of a run: a recipe on a parent."""

import uuid
from typing import Any

from django import forms

from generation.models import ModelVersion, PromptSet
from training.cadence import EVERY, OF_CADENCE
from training.cadence_forms import CadenceFields
from training.models import Recipe

ZERO = {"validate_every": " 0: none.", "sample_every": " 0: none."}


class PromptSetField(forms.ModelChoiceField):  # type: ignore[type-arg]
    def label_from_instance(self, obj: PromptSet) -> str:
        return f"{obj}: {obj.prompt_count} prompt{'' if obj.prompt_count == 1 else 's'}"


class RunForm(CadenceFields):
    """A recipe on a parent, with what this run changes."""

    request_key = forms.UUIDField(widget=forms.HiddenInput, required=False)
    recipe = forms.ModelChoiceField(queryset=Recipe.objects.none())
    parent = forms.ModelChoiceField(
        queryset=ModelVersion.objects.none(), label="Parent", help_text="The version that the run starts from."
    )
    name = forms.CharField(
        max_length=120, required=False, help_text="Empty: the recipe's name and the parent's number."
    )
    watch = PromptSetField(
        queryset=PromptSet.objects.none(),
        required=False,
        label="Prompts to watch",
        help_text="Four of these, from two seeds each, are drawn as the run goes on, beside the parent's. Empty: captions of "
        "the sources, or no words where they have none.",
    )
    steps = forms.IntegerField(min_value=1, max_value=1_000_000, required=False, help_text="Empty: as the recipe says.")
    seed = forms.IntegerField(min_value=0, max_value=2**63 - 1, required=False, help_text="Empty: as the recipe says.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["recipe"].queryset = Recipe.objects.order_by("-pk")  # type: ignore[attr-defined]
        self.fields["parent"].queryset = ModelVersion.objects.all()  # type: ignore[attr-defined]
        self.fields["watch"].queryset = PromptSet.objects.latest_versions()  # type: ignore[attr-defined]
        # A form that is sent twice starts one run.
        self.fields["request_key"].initial = uuid.uuid4
        for name in OF_CADENCE:
            by_steps = ", or by the number of steps" if name in EVERY else ""
            self.fields[name].help_text = f"Empty: as the recipe says{by_steps}.{ZERO.get(name, '')}"

    def overrides(self) -> dict[str, Any]:
        chosen = {key: self.cleaned_data[key] for key in ("steps", "seed") if self.cleaned_data.get(key) is not None}
        return {**chosen, **self.cadence_settings()}
