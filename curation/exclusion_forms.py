"""The form by which a curator excludes what a rater said, or takes it in again."""

from typing import Any

from django import forms

from accounts.models import User
from curation.exclusions import Applied, ExclusionRefused, set_excluded
from curation.models import CampaignRater

INCOMPLETE = "This form is incomplete. Open the page again."


class ExclusionForm(forms.Form):
    """Why, and which of the two it is: what somebody else did meanwhile is not turned round."""

    reason = forms.CharField(
        max_length=300,
        label="Why",
        error_messages={"required": "Say in a sentence why. It is kept with the judgments."},
    )
    excluded = forms.TypedChoiceField(
        choices=[("yes", "yes"), ("no", "no")],
        coerce=lambda value: value == "yes",
        widget=forms.HiddenInput,
        error_messages=dict.fromkeys(["required", "invalid_choice"], INCOMPLETE),
    )

    def __init__(self, *args: Any, place: CampaignRater, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.place = place
        self.fields["reason"].help_text = (
            "For example “We had answered a question of theirs wrongly”."
            if place.excluded
            else "For example “Passed everything without looking; see the gold items”."
        )

    def save(self, by: User) -> Applied | None:
        """What became of it; None with an error on the form where it was refused."""
        try:
            return set_excluded(self.place, **self.cleaned_data, by=by)
        except ExclusionRefused as refusal:
            self.add_error(None, refusal.args[0])
            return None
