"""What curators ask for about the quality of raters' work: known answers, where gold comes from, and how much of it there is."""

from typing import Any

from django import forms

from accounts.models import User
from curation.gold import MOST_AT_ONCE, GoldRefused, copy_gold, known_choices, mark_gold, set_gold_percent, sources_for
from curation.models import Campaign, GoldItem, Item


class KnownAnswersForm(forms.Form):
    """The known answer to each question; at least one must be known."""

    def __init__(self, *args: Any, item: Item, **kwargs: Any) -> None:
        gold = GoldItem.objects.filter(item=item).first()
        kwargs.setdefault("initial", gold.answers if gold else {})
        super().__init__(*args, **kwargs)
        self.item = item
        for question in item.campaign.questions.all():
            self.fields[question.name] = forms.ChoiceField(
                label=question.text,
                choices=[*known_choices(item.campaign, question), ("", "Not known: leave it out")],
                widget=forms.RadioSelect,
                required=False,
            )

    def save(self, by: User) -> bool:
        """Whether it was taken; an error is on the form where it was refused."""
        try:
            mark_gold(self.item, {name: value for name, value in self.cleaned_data.items() if value}, by=by)
        except GoldRefused as refused:
            self.add_error(None, refused.args[0])
            return False
        return True


class CopyGoldForm(forms.Form):
    """Gold from a closed campaign whose raters were of one mind."""

    source = forms.ModelChoiceField(Campaign.objects.none(), label="Closed campaign", empty_label=None)
    count = forms.IntegerField(min_value=1, max_value=MOST_AT_ONCE, initial=20, label="Items at most")

    def __init__(self, *args: Any, campaign: Campaign, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.campaign = campaign
        offered = [row.pk for row in sources_for(campaign, user)]
        self.has_sources = bool(offered)
        self.fields["source"].queryset = Campaign.objects.filter(pk__in=offered)  # type: ignore[attr-defined]

    def save(self, by: User) -> int:
        """How many items were taken. Raises GoldRefused."""
        return copy_gold(self.campaign, self.cleaned_data["source"], self.cleaned_data["count"], by=by)


class QualityForm(forms.Form):
    """How raters are measured."""

    gold_percent = forms.IntegerField(
        min_value=0,
        max_value=50,
        label="Gold items, in percent",
        help_text="Of what each rater gets, as long as there are some that they have not had. 0 to 50.",
    )

    def __init__(self, *args: Any, campaign: Campaign, **kwargs: Any) -> None:
        kwargs.setdefault("initial", {"gold_percent": campaign.gold_percent})
        super().__init__(*args, **kwargs)
        self.campaign = campaign

    def save(self, by: User) -> None:
        set_gold_percent(self.campaign, self.cleaned_data["gold_percent"], by=by)
