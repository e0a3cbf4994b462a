"""Questions of a campaign: how they read, and the revisions in which that changed. Which questions there are, which have to be
answered, and what their choices mean, stays once a campaign was opened: verdicts would mix what raters said to one thing with
what they said to another, and no judgment would add up to those of before."""

from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import Q
from django.utils.text import slugify

from accounts.models import User
from curation.examples import examples_of
from curation.models import (
    Campaign,
    CampaignEvent,
    CampaignKind,
    CampaignRater,
    CampaignState,
    Question,
    QuestionRevision,
)
from curation.rubrics import QuestionSpec, RubricRefused, check_questions

LONGEST_TEXT, LONGEST_HELP, LONGEST_LABEL = 200, 300, 40
LONGEST_NAME = 40
# Under the fingers of both hands first. Last those by which the rating screen (static/js/rate/keymap.js) does something else,
# since a choice's key goes before a command's: first Undo and what passes all, which have another key, at the end Skip.
LETTERS = "FJDKLEICMNHWTQA" + "UPBOZRVXYGS"
NAMED_KEYS = frozenset({"ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"})
OTHER_QUESTIONS = (
    "Which questions there are, which has to be answered, and which choices, cannot change any more: verdicts would mix what "
    "raters said before and after. Close this campaign, and begin a new one that asks anew."
)


class QuestionsRefused(ValueError):
    """What was asked of the questions was not done; the message says why, for a person."""


class Asked(NamedTuple):
    """What a campaign asks now: the number of the revision, and the questions as it has them. None where a campaign of before
    has no revision."""

    number: int | None
    questions: list[dict[str, Any]]


def specs_of(campaign: Campaign) -> list[dict[str, Any]]:
    """The campaign's questions as a revision keeps them."""
    return [
        {
            "name": row.name,
            "text": row.text,
            "help": row.help,
            "choices": row.choices,
            "required": row.required,
            "multiple": row.multiple,
            "reasons": row.reasons,
            "needs_reason": row.needs_reason,
            "marks": row.marks,
        }
        for row in campaign.questions.all()
    ]


def as_questions(specs: Sequence[dict[str, Any]]) -> list[Question]:
    """The questions of a revision as rows that are not stored, to check answers by."""
    return [Question(position=position, **spec) for position, spec in enumerate(specs)]


def ask_the_same(some: Sequence[Question], others: Sequence[Question]) -> bool:
    """Whether answers to these mean what answers to the others do, however they read."""
    return _meanings(some) == _meanings(others)


def _meanings(questions: Sequence[Question]) -> list[Any]:
    return [
        (each.name, each.required, each.multiple, each.marks, [(one["value"], one["accepts"]) for one in each.choices])
        for each in questions
    ]


def first_questions(campaign: Campaign) -> QuestionRevision:
    """Keep the questions with which a campaign was set up."""
    return QuestionRevision.objects.create(
        campaign=campaign,
        number=1,
        questions=specs_of(campaign),
        change="As the campaign was set up.",
        by=campaign.created_by,
        at=campaign.created_at,
    )


def asked_now(campaign: Campaign) -> Asked:
    """One row says both the questions and their number, whatever is saved meanwhile."""
    newest = campaign.question_revisions.first()
    return Asked(None, specs_of(campaign)) if newest is None else Asked(newest.number, newest.questions)


def question_news(campaign: Campaign, read: int | None, number: int | None) -> list[QuestionRevision]:
    """The revisions up to that number which a rater who has `read` up to another was not told of, the oldest first."""
    if number is None or read is None or read >= number:
        return []
    return list(campaign.question_revisions.filter(number__gt=read, number__lte=number).order_by("number"))


def mark_questions_read(campaign: Campaign, rater: User, number: int) -> None:
    """The rater knows what changed up to that revision, on every device. Raises QuestionsRefused."""
    if not campaign.question_revisions.filter(number=number).exists():
        raise QuestionsRefused(f"The questions of this campaign have no revision {number}.")
    unread = Q(questions_read=None) | Q(questions_read__lt=number)
    CampaignRater.objects.filter(unread, campaign=campaign, rater=rater).update(questions_read=number)


@transaction.atomic
def revise_questions(
    campaign: Campaign, questions: Sequence[QuestionSpec], *, change: str, based_on: int, by: User
) -> QuestionRevision:
    """Add a revision, which raters have with their next lease. Raises QuestionsRefused.

    What gives verdicts their meaning (`may_be_others`) changes in a draft alone. `based_on` is the number of the revision that the writer had before
    them, so that nobody undoes unseen what somebody else saved.
    """
    change = " ".join(change.split())
    if not change:
        raise QuestionsRefused("Say in a sentence what you changed.")
    locked = Campaign.objects.select_for_update(no_key=True).get(pk=campaign.pk)
    newest = locked.question_revisions.first() or first_questions(locked)
    if locked.state == CampaignState.CLOSED:
        raise QuestionsRefused("This campaign is closed. Open it again to change how its questions read.")
    if newest.number != based_on:
        raise QuestionsRefused(
            f"{newest.by} saved revision {newest.number} meanwhile. What you wrote is kept here: look below at what that "
            "changed, put it into yours, and save again."
        )
    specs = [_in_one_form(spec) for spec in questions]
    if specs == newest.questions:
        raise QuestionsRefused("The questions read as they did before, so there is nothing to save.")
    is_another = not ask_the_same(as_questions(specs), as_questions(newest.questions))
    if is_another:
        _check_may_be_others(locked)
    _check(locked, specs)
    revision = QuestionRevision.objects.create(
        campaign=locked, number=newest.number + 1, questions=specs, change=change, by=by
    )
    _write(locked, specs, is_another=is_another)
    CampaignEvent.objects.create(campaign=locked, kind="questions", by=by, detail={"revision": revision.number})
    return revision


def why_not_otherwise(campaign: Campaign) -> str:
    """Why other questions and choices are no longer taken, as a sentence; empty where they are."""
    if campaign.kind == CampaignKind.PICK:
        return "A pick asks one question: which of its candidates are the best."
    try:
        _check_may_be_others(campaign)
    except QuestionsRefused as refused:
        return str(refused.args[0])
    return ""


def with_question(
    campaign: Campaign, specs: Sequence[dict[str, Any]], text: str, accepting: Sequence[str], others: Sequence[str]
) -> list[Any]:
    """The questions and one more, whose choices are called so; each gets a key that is free. In a comparison its choices are
    those of the first question."""
    name = _free_name(text, [spec["name"] for spec in specs])
    if campaign.compares:
        choices = [dict(choice) for choice in specs[0]["choices"]]
    else:
        taken = {choice["key"].casefold() for spec in specs for choice in spec["choices"]}
        keys = (letter for letter in LETTERS if letter.casefold() not in taken)
        values: list[str] = []
        choices = []
        for label, accepts in [(each, True) for each in accepting] + [(each, False) for each in others]:
            values.append(_free_name(label, values))
            choices.append({"value": values[-1], "label": label, "key": next(keys, ""), "accepts": accepts})
    return [*specs, {"name": name, "text": text, "choices": choices}]


def _free_name(text: str, taken: Sequence[str]) -> str:
    base = slugify(text).replace("-", "_")[:LONGEST_NAME] or "question"
    return next(name for number in count(1) if (name := base if number == 1 else f"{base}_{number}") not in taken)


def in_words(specs: Sequence[dict[str, Any]]) -> str:
    """The questions as lines of text, by which two revisions are compared."""
    return "\n".join(line for spec in specs for line in _lines(spec))


def _lines(spec: dict[str, Any]) -> list[str]:
    keys = ", ".join(
        f"{choice['label']} ({choice['key']})"
        if choice["key"] and choice["key"] != choice["label"]
        else choice["label"]
        for choice in spec["choices"]
    )
    reasons = [f"Reasons for a fail{', of which one is needed' if spec['needs_reason'] else ''}:"]
    return [
        spec["text"] if spec["required"] else f"{spec['text']} (may be left out)",
        *([f"Help: {spec['help']}"] if spec["help"] else []),
        f"Choices: {keys}",
        *([*reasons, *(f"- {reason}" for reason in spec["reasons"])] if spec["reasons"] else []),
        "",
    ]


def _in_one_form(spec: Any) -> dict[str, Any]:
    """Everything that a revision keeps, with spaces as they are shown."""
    return {
        "name": spec["name"],
        "text": " ".join(spec["text"].split()),
        "help": " ".join(spec.get("help", "").split()),
        "choices": [{**choice, "label": " ".join(choice["label"].split())} for choice in spec["choices"]],
        "required": spec.get("required", True),
        "multiple": spec.get("multiple", False),
        "reasons": [" ".join(reason.split()) for reason in spec.get("reasons", [])],
        "needs_reason": spec.get("needs_reason", False),
        "marks": str(spec.get("marks", "")),
    }


def _check(campaign: Campaign, specs: Any) -> None:
    try:
        check_questions(campaign.kind, specs)
    except RubricRefused as refusal:
        raise QuestionsRefused(refusal.args[0]) from refusal
    if not any(spec["required"] for spec in specs):
        raise QuestionsRefused(
            "At least one question has to be answered: of an item of which none is, nothing is known."
        )
    for spec in specs:
        if not spec["text"] or len(spec["text"]) > LONGEST_TEXT:
            raise QuestionsRefused(f"A question has between 1 and {LONGEST_TEXT} characters.")
        if len(spec["help"]) > LONGEST_HELP:
            raise QuestionsRefused(f"The help of a question has at most {LONGEST_HELP} characters.")
        if any(not choice["label"] or len(choice["label"]) > LONGEST_LABEL for choice in spec["choices"]):
            raise QuestionsRefused(f"What a choice is called has between 1 and {LONGEST_LABEL} characters.")
        _check_keys(campaign, spec)


def _check_keys(campaign: Campaign, spec: dict[str, Any]) -> None:
    keys = [choice["key"] for choice in spec["choices"]]
    if len({key.casefold() for key in keys if key}) != len([key for key in keys if key]):
        raise QuestionsRefused(f"Two choices of “{spec['text']}” share a key.")
    for key in keys:
        if key and key not in NAMED_KEYS and (len(key) != 1 or not key.isprintable() or key.isspace()):
            raise QuestionsRefused(f"“{key}” is no key: one letter or sign, or {', '.join(sorted(NAMED_KEYS))}.")
        if key.isdigit() and not spec["multiple"]:
            raise QuestionsRefused(f"The digit {key} gives a reason, so it cannot answer “{spec['text']}”.")


def may_be_others(campaign: Campaign) -> bool:
    """Whether other questions can still be asked: nobody was asked these yet."""
    return campaign.state == CampaignState.DRAFT and campaign.opened_at is None


def _check_may_be_others(campaign: Campaign) -> None:
    if not may_be_others(campaign):
        raise QuestionsRefused(OTHER_QUESTIONS)
    # An example may show a sticker that is no item of the campaign.
    if campaign.items.filter(is_gold=True).exists() or examples_of(campaign.revisions.first()):
        raise QuestionsRefused(
            "Gold items and examples say what is right to these questions. Begin a new campaign that asks anew."
        )


def _write(campaign: Campaign, specs: Sequence[dict[str, Any]], *, is_another: bool) -> None:
    if is_another:
        campaign.questions.all().delete()
        for row in as_questions(specs):
            row.campaign = campaign
            row.save(force_insert=True)
        return
    for spec in specs:
        fields = {name: spec[name] for name in ("text", "help", "choices", "required", "reasons", "needs_reason")}
        Question.objects.filter(campaign=campaign, name=spec["name"]).update(**fields)
