"""What forms of recipes and runs ask about how often a run writes, validates and draws."""

from typing import Any

from django import forms

from training.cadence import OF_CADENCE


class CadenceFields(forms.Form):
    """The part of a form that says how often. What is left empty goes by the number of steps."""

    checkpoint_every = forms.IntegerField(
        min_value=1,
        max_value=1_000_000,
        required=False,
        label="Steps between checkpoints",
        help_text="A run that is stopped goes on from its last one. Empty: about a fortieth of the steps, at least 50.",
    )
    keep_checkpoints = forms.IntegerField(
        min_value=1,
        max_value=1000,
        required=False,
        label="Checkpoints kept",
        help_text="The newest; older ones are removed. Empty: 2.",
    )
    validate_every = forms.IntegerField(
        min_value=0,
        max_value=1_000_000,
        required=False,
        label="Steps between validations",
        help_text="Empty: about a fortieth of the steps, at least 50. 0: none.",
    )
    sample_every = forms.IntegerField(
        min_value=0,
        max_value=1_000_000,
        required=False,
        label="Steps between drawings",
        help_text="Empty: about a twentieth of the steps, at least 100. 0: none.",
    )
    sample_steps = forms.IntegerField(
        min_value=1,
        max_value=1000,
        required=False,
        label="Steps of a drawing",
        help_text="Empty: 20.",
    )
    sample_guidance = forms.FloatField(
        min_value=0,
        max_value=50,
        required=False,
        label="Guidance of a drawing",
        help_text="How closely drawings follow their prompts. Empty: 4.",
    )

    def cadence_settings(self) -> dict[str, Any]:
        """What RunSettings takes, without what was left empty."""
        return {key: self.cleaned_data[key] for key in OF_CADENCE if self.cleaned_data.get(key) is not None}
