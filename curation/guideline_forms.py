"""What curators ask of guidelines: another text, and other examples."""

import re
from typing import Any

from django import forms
from django.http import QueryDict

from accounts.models import User
from curation.examples import LONGEST_WHY, MOST_EXAMPLES, Example, examples_of, samples_of
from curation.guidelines import GuidelinesRefused, revise_guidelines
from curation.models import Campaign, CampaignKind, GuidelineRevision, Question
from generation.models import Sample

PREFIX = "examples"
# What somebody typed into a field of numbers, at most.
MOST_NUMBERS = 50
GOOD, BAD = "good", "bad"


class GuidelinesForm(forms.Form):
    """A new revision of a campaign's guidelines."""

    text = forms.CharField(
        required=False,
        max_length=20_000,
        label="Guidelines",
        widget=forms.Textarea(attrs={"rows": 16}),
        help_text="Markdown, shown beside the work.",
    )
    change = forms.CharField(
        max_length=200,
        label="What you changed",
        help_text="A sentence, for example “Stickers with a white rim now pass”.",
        error_messages={"required": "Say in a sentence what you changed."},
    )
    asks = forms.BooleanField(
        required=False,
        label="Raters answer the changed examples first",
        help_text="Each rater answers those that you added or changed before they get more of this campaign, and is told after "
        "each what is right and why. What they have in hand they may finish.",
    )
    asks_percent = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=100,
        initial=80,
        label="Right answers that it takes, in percent",
        help_text="1 to 100. Who is below may read the guidelines and try again.",
    )
    based_on = forms.IntegerField(
        widget=forms.HiddenInput,
        error_messages=dict.fromkeys(["required", "invalid"], "This form is incomplete. Open the page again."),
    )

    def __init__(self, *args: Any, campaign: Campaign, **kwargs: Any) -> None:
        kwargs.setdefault("initial", {"text": campaign.guidelines})
        super().__init__(*args, **kwargs)
        self.campaign = campaign
        if campaign.kind in (CampaignKind.PICK, CampaignKind.SETS):
            del self.fields["asks"], self.fields["asks_percent"]

    def clean(self) -> dict[str, Any]:
        asked = super().clean() or {}
        if asked.get("asks") and "asks_percent" not in self.errors and asked.get("asks_percent") is None:
            self.add_error("asks_percent", "Say how many of them have to be right.")
        return asked

    def save(self, by: User, examples: list[Example] | None) -> GuidelineRevision | None:
        """The revision; None with an error on the form where it was refused. Without `examples` those of before stay."""
        said = self.cleaned_data
        try:
            return revise_guidelines(
                self.campaign,
                said["text"],
                change=said["change"],
                based_on=said["based_on"],
                by=by,
                examples=examples,
                asks_percent=said["asks_percent"] if said.get("asks") else None,
            )
        except GuidelinesRefused as refused:
            self.add_error(None, refused.args[0])
            return None


class ExampleForm(forms.Form):
    """One example: its samples, the right answer to each question, and why."""

    samples = forms.RegexField(
        r"^\d{1,18}(\+\d{1,18})?$",
        widget=forms.HiddenInput,
        error_messages=dict.fromkeys(["required", "invalid"], "This form is incomplete. Open the page again."),
    )

    def __init__(self, *args: Any, campaign: Campaign, questions: list[Question], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What was sent without anything in it is not left out in silence: it would be an example that shows nothing.
        self.empty_permitted = False
        self.shown: list[Sample] = []
        if campaign.kind == CampaignKind.PICK:
            self.questions: list[Question] = []
            choices = [(GOOD, "One would take it"), (BAD, "One would not take it")]
            self.fields["is_good"] = forms.ChoiceField(label="Would one take it?", choices=[("", "Choose"), *choices])
        else:
            self.questions = questions
        for question in self.questions:
            choices = [(choice["value"], choice["label"]) for choice in question.choices]
            nothing = "Choose" if question.required else "Leave it open"
            self.fields[f"answer_{question.name}"] = forms.ChoiceField(
                label=question.text, choices=[("", nothing), *choices], required=question.required
            )
        self.fields["why"] = forms.CharField(
            max_length=LONGEST_WHY,
            label="Why",
            error_messages={"required": "Say in a sentence why these are the right answers."},
        )

    def as_example(self) -> Example:
        """What a valid form says."""
        said = self.cleaned_data
        answers = {question.name: said[f"answer_{question.name}"] for question in self.questions}
        return Example(
            samples=read_samples(said["samples"]),
            answers={name: value for name, value in answers.items() if value},
            why=said["why"],
            is_good=said["is_good"] == GOOD if "is_good" in said else None,
        )


class BaseExamples(forms.BaseFormSet):  # type: ignore[type-arg]
    """All examples of the revision that is being written, in their order."""

    def chosen(self) -> list[Example]:
        """Those that stay or come, of a valid form set."""
        return [form.as_example() for form in self.forms if not form.cleaned_data.get("DELETE")]

    def add_fields(self, form: ExampleForm, index: int | None) -> None:
        super().add_fields(form, index)
        form.fields["DELETE"].label = "Leave it out"


ExampleForms = forms.formset_factory(
    ExampleForm,
    formset=BaseExamples,
    extra=0,
    can_delete=True,
    max_num=MOST_EXAMPLES,
    absolute_max=MOST_EXAMPLES + 60,
)


def examples_form(campaign: Campaign, newest: GuidelineRevision | None, data: QueryDict | None = None) -> BaseExamples:
    """The examples as they are, or as they were sent."""
    questions = list(campaign.questions.all())
    kwargs: dict[str, Any] = {
        "prefix": PREFIX,
        "form_kwargs": {"campaign": campaign, "questions": questions},
    }
    if data is not None:
        return _shown(ExampleForms(data, **kwargs))
    initial = [
        {
            "samples": "+".join(map(str, samples_of(row))),
            "why": row.why,
            "is_good": "" if row.is_good is None else GOOD if row.is_good else BAD,
            **{f"answer_{name}": value for name, value in row.answers.items()},
        }
        for row in examples_of(newest)
    ]
    return _shown(ExampleForms(initial=initial, **kwargs))


def examples_with(campaign: Campaign, data: QueryDict, added: list[str]) -> BaseExamples:
    """What was typed so far, unchecked, and these samples (as `12` or `12+13`) after it; those there already come once."""
    questions = list(campaign.questions.all())
    names = ["samples", "why", "is_good", *(f"answer_{question.name}" for question in questions)]
    count = data.get(f"{PREFIX}-TOTAL_FORMS", "")
    typed = [
        {name: data.get(f"{PREFIX}-{index}-{name}", "") for name in names}
        for index in range(min(int(count), MOST_EXAMPLES + 60) if count.isdecimal() and len(count) < 6 else 0)
        if not data.get(f"{PREFIX}-{index}-DELETE")
    ]
    known = {row["samples"] for row in typed}
    typed += [{"samples": samples} for samples in dict.fromkeys(added) if samples not in known]
    typed = [row for row in typed if re.fullmatch(r"\d{1,18}(\+\d{1,18})?", row["samples"])]
    kwargs: dict[str, Any] = {"form_kwargs": {"campaign": campaign, "questions": questions}}
    return _shown(ExampleForms(initial=typed, prefix=PREFIX, **kwargs))


def read_samples(text: str) -> tuple[int, ...]:
    """12 or 12+13."""
    return tuple(map(int, text.split("+")))


def read_numbers(text: str) -> list[str]:
    """The numbers of samples that somebody typed, whatever is between them."""
    return re.findall(r"(?<!\d)\d{1,18}(?!\d)", text)[:MOST_NUMBERS]


def _shown(forms_of: Any) -> BaseExamples:
    """Each form gets what it shows."""
    wanted: dict[ExampleForm, tuple[int, ...]] = {}
    for form in forms_of.forms:
        text = str(form["samples"].value() or "")
        wanted[form] = read_samples(text) if re.fullmatch(r"\d{1,18}(\+\d{1,18})?", text) else ()
    found = Sample.objects.select_related("prompt").in_bulk({pk for each in wanted.values() for pk in each})
    for form, pks in wanted.items():
        form.shown = [found[pk] for pk in pks if pk in found]
    assert isinstance(forms_of, BaseExamples)
    return forms_of
