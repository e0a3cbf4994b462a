"""What curators ask for about the quality of raters' work: known answers, where gold comes from, and how much of it there is."""

from typing import Any

from django import forms
from django.db import transaction

from accounts.models import User
from curation.gold import MOST_AT_ONCE, GoldRefused, copy_gold, known_choices, mark_gold, set_gold_percent, sources_for
from curation.models import Campaign, GoldItem, Item
from curation.probes import LEAST_BETWEEN, MOST_PERCENT, set_probe_percent
from curation.standing import LEAST_TO_PAUSE, set_bars


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

    probe_percent = forms.IntegerField(
        min_value=0,
        max_value=MOST_PERCENT,
        label="Asked again, in percent",
        help_text=f"Of what each rater gets, items that they judged at least {LEAST_BETWEEN} judgments before, to see whether "
        f"they say the same; in a comparison with the sides swapped. The second answer decides nothing. 0 to {MOST_PERCENT}.",
    )
    qualification_items = forms.IntegerField(
        min_value=0,
        max_value=50,
        label="Gold items of a qualification round",
        help_text="A new rater gets so many gold items first, and nothing else until enough are right. 0 for no round.",
    )
    qualification_percent = forms.IntegerField(
        min_value=1, max_value=100, label="Right answers to qualify, in percent", help_text="1 to 100."
    )
    pause_window = forms.IntegerField(
        min_value=0,
        max_value=100,
        label="Gold items after which a decline is looked for anew",
        help_text="All answers of a rater count; after each so many the search also begins afresh, so that who grows careless "
        "later is found too. 5 to 100, or 0 to pause nobody.",
    )
    pause_percent = forms.IntegerField(
        min_value=1,
        max_value=100,
        label="Pause below, in percent",
        help_text="A rater is paused when chance does not explain being below this. Of those who are right as often as this, at "
        "most 5% are ever paused.",
    )

    def __init__(self, *args: Any, campaign: Campaign, **kwargs: Any) -> None:
        kwargs.setdefault("initial", {name: getattr(campaign, name) for name in self.base_fields})
        super().__init__(*args, **kwargs)
        self.campaign = campaign

    def clean_pause_window(self) -> int:
        window: int = self.cleaned_data["pause_window"]
        if 0 < window < LEAST_TO_PAUSE:
            raise forms.ValidationError(f"Fewer than {LEAST_TO_PAUSE} answers say nothing.")
        return window

    @transaction.atomic
    def save(self, by: User) -> None:
        """Raises GoldRefused."""
        bars = dict(self.cleaned_data)
        set_gold_percent(self.campaign, bars.pop("gold_percent"), by=by)
        set_probe_percent(self.campaign, bars.pop("probe_percent"), by=by)
        set_bars(self.campaign, **bars, by=by)
