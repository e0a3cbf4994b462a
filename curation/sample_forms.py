"""Which samples people ask to look at."""

from typing import Any

from django import forms
from django.db.models import QuerySet

from accounts.models import User
from curation.datasets import SELECTABLE
from curation.models import (
    Campaign,
    Outcome,
)
from generation.models import GenerationBatch, ModelVersion, Prompt


def selectable_campaigns(user: User) -> QuerySet[Campaign]:
    """Campaigns that accept or refuse single samples."""
    found: QuerySet[Campaign] = Campaign.objects.visible_to(user).filter(kind__in=SELECTABLE).order_by("-pk")
    return found


class SampleFilterForm(forms.Form):
    """Which samples to show; every field may be left out, and nonsense is left out too."""

    verdict = forms.ChoiceField(
        required=False,
        choices=[
            ("", "Any verdict"),
            (Outcome.ACCEPTED.value, "Accepted"),
            (Outcome.REJECTED.value, "Rejected"),
            (Outcome.SPLIT.value, "Split"),
            (Outcome.PENDING.value, "Not decided"),
        ],
        widget=forms.HiddenInput,
    )
    words = forms.CharField(
        required=False, max_length=200, widget=forms.SearchInput(attrs={"placeholder": "Prompt has"})
    )
    campaign = forms.ModelChoiceField(
        Campaign.objects.none(), required=False, to_field_name="slug", empty_label="Any campaign"
    )
    batch = forms.ModelChoiceField(GenerationBatch.objects.none(), required=False, empty_label="Any batch")
    bucket = forms.ChoiceField(required=False)
    model = forms.ModelChoiceField(
        ModelVersion.objects.none(), required=False, to_field_name="number", empty_label="Any model"
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["campaign"].queryset = selectable_campaigns(user)  # type: ignore[attr-defined]
        self.fields["batch"].queryset = GenerationBatch.objects.visible_to(user)  # type: ignore[attr-defined]
        self.fields["model"].queryset = ModelVersion.objects.visible_to(user)  # type: ignore[attr-defined]
        buckets = Prompt.objects.exclude(bucket="").order_by("bucket").values_list("bucket", flat=True).distinct()
        self.fields["bucket"].choices = [("", "Any bucket"), *((name, name) for name in buckets)]  # type: ignore[attr-defined]
