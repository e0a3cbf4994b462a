"""What curators ask of a campaign's questions: how they read, by which keys they are answered, and why something fails."""

from typing import Any

from django import forms

from accounts.models import User
from curation.models import Campaign, CampaignKind, QuestionRevision
from curation.questions import (
    LONGEST_HELP,
    LONGEST_LABEL,
    LONGEST_TEXT,
    QuestionsRefused,
    may_be_others,
    revise_questions,
    specs_of,
    with_question,
)
from curation.rubrics import MAX_REASONS


class QuestionsForm(forms.Form):
    """A new revision of the questions; which there are, and which choices, is not asked. `groups`: (question as it is now, its
    fields in rows)."""

    change = forms.CharField(
        max_length=200,
        label="What you changed",
        help_text="A sentence, for example “Text in the picture is a reason of its own”.",
        error_messages={"required": "Say in a sentence what you changed."},
    )
    based_on = forms.IntegerField(
        widget=forms.HiddenInput,
        error_messages=dict.fromkeys(["required", "invalid"], "This form is incomplete. Open the page again."),
    )

    def __init__(self, *args: Any, campaign: Campaign, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.campaign = campaign
        self.specs = specs_of(campaign)
        self.has_keys = campaign.kind != CampaignKind.PICK
        self.groups: list[tuple[dict[str, Any], list[list[forms.BoundField]]]] = []
        for spec in self.specs:
            before = set(self.fields)
            self._add_question(spec)
            self.groups.append((spec, self._rows([name for name in self.fields if name not in before])))

    def _rows(self, names: list[str]) -> list[list[forms.BoundField]]:
        """The fields, a choice's key beside what it is called."""
        rows: list[list[forms.BoundField]] = []
        for name in names:
            if name.startswith("key_"):
                rows[-1].append(self[name])
            else:
                rows.append([self[name]])
        return rows

    def _add_question(self, spec: dict[str, Any]) -> None:
        name = spec["name"]
        self.fields[f"text_{name}"] = forms.CharField(max_length=LONGEST_TEXT, label="Question", initial=spec["text"])
        self.fields[f"help_{name}"] = forms.CharField(
            max_length=LONGEST_HELP,
            required=False,
            label="Help",
            initial=spec["help"],
            help_text="A sentence below the question, for what raters ask most.",
        )
        if self.has_keys:
            for choice in spec["choices"]:
                self._add_choice(name, choice)
        can_fail = any(choice["accepts"] for choice in spec["choices"]) and self.has_keys
        if can_fail:
            self.fields[f"reasons_{name}"] = forms.CharField(
                required=False,
                max_length=1000,
                label="Reasons for a fail",
                initial="\n".join(spec["reasons"]),
                widget=forms.Textarea(attrs={"rows": 5}),
                help_text=f"One a line; at most {MAX_REASONS} in all questions together, as each has a digit.",
                strip=False,
            )
            self.fields[f"needs_{name}"] = forms.BooleanField(
                required=False, label="Ask for a reason with every fail", initial=spec["needs_reason"]
            )
        if len(self.specs) > 1 and may_be_others(self.campaign):
            self.fields[f"required_{name}"] = forms.BooleanField(
                required=False, label="Has to be answered", initial=spec["required"]
            )

    def _add_choice(self, name: str, choice: dict[str, Any]) -> None:
        value = choice["value"]
        self.fields[_of_choice("label", name, value)] = forms.CharField(
            max_length=LONGEST_LABEL, label=f"Choice “{value}” is called", initial=choice["label"]
        )
        self.fields[_of_choice("key", name, value)] = forms.CharField(
            max_length=10, required=False, label=f"Key of “{value}”", initial=choice["key"]
        )

    def questions(self) -> list[Any]:
        """The questions as a valid form has them."""
        return [self._question(spec) for spec in self.specs]

    def _question(self, spec: dict[str, Any]) -> dict[str, Any]:
        said, name = self.cleaned_data, spec["name"]
        reasons = said.get(f"reasons_{name}")
        return spec | {
            "text": said[f"text_{name}"],
            "help": said[f"help_{name}"],
            "choices": [
                choice
                | {
                    "label": said.get(_of_choice("label", name, choice["value"]), choice["label"]),
                    "key": _key(said.get(_of_choice("key", name, choice["value"]), choice["key"])),
                }
                for choice in spec["choices"]
            ],
            "reasons": spec["reasons"] if reasons is None else _lines(reasons),
            "needs_reason": said.get(f"needs_{name}", spec["needs_reason"]),
            "required": said.get(f"required_{name}", spec["required"]),
        }

    def save(self, by: User) -> QuestionRevision | None:
        """The revision; None with an error on the form where it was refused."""
        said = self.cleaned_data
        try:
            return revise_questions(
                self.campaign, self.questions(), change=said["change"], based_on=said["based_on"], by=by
            )
        except QuestionsRefused as refused:
            self.add_error(None, refused.args[0])
            return None


class OtherQuestionForm(forms.Form):
    """One more question of a campaign that was never opened, or one less. A comparison gives all its questions the same
    choices."""

    text = forms.CharField(max_length=LONGEST_TEXT, label="Question")
    accepting = forms.CharField(
        max_length=1000,
        required=False,
        label="Choices that count towards a pass",
        initial="Pass",
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="One a line.",
    )
    others = forms.CharField(
        max_length=1000,
        required=False,
        label="Choices that do not",
        initial="Fail",
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="One a line. A sticker is accepted where every question is answered with one that counts.",
    )
    based_on = forms.IntegerField(
        widget=forms.HiddenInput,
        error_messages=dict.fromkeys(["required", "invalid"], "This form is incomplete. Open the page again."),
    )

    def __init__(self, *args: Any, campaign: Campaign, **kwargs: Any) -> None:
        kwargs.setdefault("prefix", "other")
        super().__init__(*args, **kwargs)
        self.campaign = campaign
        if campaign.compares:
            del self.fields["accepting"], self.fields["others"]

    def save(self, by: User) -> QuestionRevision | None:
        """The revision with the question; None with an error on the form where it was refused."""
        said = self.cleaned_data
        text = " ".join(said["text"].split())
        accepting, others = (_lines(said.get(name, "")) for name in ("accepting", "others"))
        try:
            specs = with_question(self.campaign, specs_of(self.campaign), text, accepting, others)
            change = f"Asks too: {text}"[:LONGEST_TEXT]
            return revise_questions(self.campaign, specs, change=change, based_on=said["based_on"], by=by)
        except QuestionsRefused as refused:
            self.add_error(None, refused.args[0])
            return None


def leave_out(campaign: Campaign, name: str, *, based_on: int, by: User) -> QuestionRevision:
    """The questions without one. Raises QuestionsRefused."""
    specs = specs_of(campaign)
    gone = next((spec["text"] for spec in specs if spec["name"] == name), None)
    if gone is None:
        raise QuestionsRefused("Somebody left this question out meanwhile.")
    if len(specs) == 1:
        raise QuestionsRefused("A campaign asks at least one question. Add another before you leave this one out.")
    kept: list[Any] = [spec for spec in specs if spec["name"] != name]
    return revise_questions(campaign, kept, change=f"Asks no more: {gone}"[:LONGEST_TEXT], based_on=based_on, by=by)


def _of_choice(part: str, name: str, value: str) -> str:
    """The field of a choice. Names and values are words with underscores, so that one more would not say where the name ends;
    a number in their place would mean another question on a form that is shown again after somebody left one out."""
    return f"{part}_{name}:{value}"


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def _key(text: str) -> str:
    """Letters are printed as capitals on the keys."""
    return text.upper() if len(text) == 1 else text
