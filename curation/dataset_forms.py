"""What people ask of datasets: which campaigns they select from, and to freeze a version."""

from typing import Any

from django import forms
from django.db.models import Case, Q, QuerySet, When

from accounts.models import User
from curation.datasets import SELECTABLE, DatasetRefused, choose_campaigns, create_dataset
from curation.models import (
    Campaign,
    CampaignKind,
    CampaignState,
    Dataset,
    DatasetKind,
)


class SelectionField(forms.ModelMultipleChoiceField):  # type: ignore[type-arg]
    """Campaigns to select from; a comparison's label says that it gives pairs."""

    def __init__(self, **kwargs: Any) -> None:
        messages = {
            "required": "Choose at least one campaign to select from.",
            "invalid_choice": "One of these cannot be chosen: a dataset keeps to its kind, and a comparison must be closed.",
            "invalid_pk_value": "One of these is no campaign.",
        }
        super().__init__(
            queryset=Campaign.objects.none(), widget=forms.CheckboxSelectMultiple, error_messages=messages, **kwargs
        )

    def label_from_instance(self, obj: Any) -> str:
        if obj.kind != CampaignKind.COMPARE:
            return str(obj)
        return f"{obj} (comparison: pairs{'' if obj.state == CampaignState.CLOSED else ', not closed'})"


class DatasetForm(forms.Form):
    """A named selection."""

    name = forms.CharField(max_length=120, help_text="For example “Content” or “Die-cut style”.")
    campaigns = SelectionField(
        help_text="From alignment, style and pick campaigns come images: a sample is in when every one of these that has "
        "decided about it accepted it. From closed comparisons come pairs, of the preferred and the rejected sample. A "
        "dataset holds one or the other.",
    )
    note = forms.CharField(max_length=300, required=False, help_text="What it is for.")

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["campaigns"].queryset = offered_campaigns(user)  # type: ignore[attr-defined]

    def create(self, by: User) -> Dataset | None:
        """The dataset; None with an error on the form where it was refused."""
        try:
            return create_dataset(**self.cleaned_data, by=by)
        except DatasetRefused as refused:
            self.add_error(None, refused.args[0])
            return None


class DatasetCampaignsForm(forms.Form):
    """Which campaigns a dataset selects from, from now on."""

    campaigns = SelectionField()

    def __init__(self, *args: Any, dataset: Dataset, user: User, **kwargs: Any) -> None:
        kwargs.setdefault("initial", {"campaigns": dataset.campaigns.values_list("pk", flat=True)})
        super().__init__(*args, **kwargs)
        self.dataset = dataset
        self.fields["campaigns"].queryset = offered_campaigns(user, dataset)  # type: ignore[attr-defined]

    def save(self) -> bool:
        """Whether it was taken; an error is on the form where it was refused."""
        try:
            choose_campaigns(self.dataset, self.cleaned_data["campaigns"])
        except DatasetRefused as refused:
            self.add_error(None, refused.args[0])
            return False
        return True


def offered_campaigns(user: User, dataset: Dataset | None = None) -> QuerySet[Campaign]:
    """What a new dataset may select from, or this one: those that give images first, then closed comparisons.

    A dataset keeps a comparison that was opened again, so that choosing others does not drop it unseen.
    """
    about_one, about_two = Q(kind__in=SELECTABLE), Q(kind=CampaignKind.COMPARE, state=CampaignState.CLOSED)
    offered = about_one | about_two
    if dataset is not None:
        fitting = about_two if dataset.kind == DatasetKind.PAIRS else about_one
        offered = fitting | Q(pk__in=dataset.campaigns.values("pk"))
    found: QuerySet[Campaign] = Campaign.objects.visible_to(user).filter(offered)
    return found.order_by(Case(When(kind=CampaignKind.COMPARE, then=1), default=0), "-pk")


class FreezeForm(forms.Form):
    """A note for the version."""

    note = forms.CharField(max_length=300, required=False)
