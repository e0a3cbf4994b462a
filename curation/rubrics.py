"""Rubrics: the questions that each kind of campaign asks, as data. A campaign copies them, so that an edit here changes no campaign."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

from curation.models import COMPARISONS, CampaignKind, Mark

# One digit for each.
MAX_REASONS = 9
MAX_REASON_LENGTH = 40


class Choice(TypedDict):
    """`key` is a single character or a name such as ArrowLeft; `accepts` says that the choice counts towards a pass."""

    value: str
    label: str
    key: str
    accepts: bool


class QuestionSpec(TypedDict):
    """One question: the first choice is the one for the left hand. `reasons` and `marks` say why it was failed (a Mark)."""

    name: str
    text: str
    choices: list[Choice]
    help: NotRequired[str]
    required: NotRequired[bool]
    reasons: NotRequired[list[str]]
    needs_reason: NotRequired[bool]
    multiple: NotRequired[bool]
    marks: NotRequired[str]


class RubricRefused(ValueError):
    """Questions that cannot be asked."""


def _pass_or_fail(passes: str, fails: str) -> list[Choice]:
    return [
        {"value": "pass", "label": "Pass", "key": passes, "accepts": True},
        {"value": "fail", "label": "Fail", "key": fails, "accepts": False},
    ]


# The keys of a row lie under both middle fingers, and the three rows below each other as on the screen. Each of the three
# questions is one that the paper's expert raters answered (arXiv 2311.10794, human-in-the-loop style data).
RUBRICS: dict[str, list[QuestionSpec]] = {
    CampaignKind.ALIGNMENT: [
        {
            "name": "alignment",
            "text": "Does the sticker show what the prompt says?",
            "choices": _pass_or_fail("F", "J"),
            "reasons": [
                "Wrong subject",
                "Wrong emotion",
                "Wrong action",
                "Missing part",
                "Something extra",
                "Text in it",
            ],
            "marks": Mark.WORDS,
        }
    ],
    CampaignKind.STYLE: [
        {
            "name": "visual_quality",
            "text": "Is it drawn well?",
            "choices": _pass_or_fail("E", "I"),
            "reasons": ["Artefact", "Cut off", "Text in it"],
            "marks": Mark.POINT,
        },
        {
            "name": "prompt_alignment",
            "text": "Does it show what the prompt says?",
            "choices": _pass_or_fail("D", "K"),
            "reasons": ["Wrong subject", "Wrong emotion", "Missing part"],
            "marks": Mark.WORDS,
        },
        {
            "name": "style_alignment",
            "text": "Is it in the house style?",
            "choices": _pass_or_fail("C", "M"),
            "reasons": ["Off style", "Bad edge", "Background"],
        },
    ],
    CampaignKind.COMPARE: [
        {
            "name": "preference",
            "text": "Which sticker is better for this prompt?",
            "choices": [
                {"value": "left", "label": "Left", "key": "ArrowLeft", "accepts": False},
                {"value": "right", "label": "Right", "key": "ArrowRight", "accepts": False},
                {"value": "tie", "label": "Equally good", "key": "ArrowUp", "accepts": False},
                {"value": "both_bad", "label": "Both bad", "key": "ArrowDown", "accepts": False},
            ],
        }
    ],
    # The third axis of the paper's raters, scene diversity, which is of a set and of no single sticker.
    CampaignKind.SETS: [
        {
            "name": "variety",
            "text": "Which set is more varied?",
            "choices": [
                {"value": "left", "label": "Left", "key": "ArrowLeft", "accepts": False},
                {"value": "right", "label": "Right", "key": "ArrowRight", "accepts": False},
                {"value": "tie", "label": "Equally varied", "key": "ArrowUp", "accepts": False},
            ],
        }
    ],
}
COMPARE_VALUES = frozenset({"left", "right", "tie", "both_bad"})


def pick_questions(candidates: int) -> list[QuestionSpec]:
    """Which of so many candidates are the best: a digit for each, and a key for none."""
    choices: list[Choice] = [
        {"value": str(place), "label": str(place), "key": str(place), "accepts": True}
        for place in range(1, candidates + 1)
    ]
    choices.append({"value": "none", "label": "None is good", "key": "N", "accepts": False})
    return [{"name": "best", "text": "Which of these are the best?", "choices": choices, "multiple": True}]


GUIDELINES: dict[str, str] = {
    CampaignKind.PICK: """\
Several stickers for one prompt. Pick the best of them: those that you would put into the set as they are.

- Look at the examples first: what you pick should look as if it belonged to them.
- Pick several where several are that good.
- **None is good** when you would take none. Few and good stickers teach more than many.

The order is mixed at random and means nothing.
""",
    CampaignKind.ALIGNMENT: """\
**Pass** a sticker that shows everything the prompt names: the subject, what it does, what it feels.

**Fail** it when

- the subject is missing, or is something else,
- the emotion or the action is another one,
- a second thing that the prompt asks for is missing.

Do not judge how well it is drawn. Skip when you cannot tell.
""",
    CampaignKind.STYLE: """\
Answer each question on its own.

- **Drawn well**: clean shapes, nothing cut off, no holes, no extra limbs.
- **Shows the prompt**: everything that the prompt names is there.
- **House style**: looks like the examples, with a clean edge around the whole figure.

When in doubt, fail: few and good stickers teach more than many.
""",
    CampaignKind.COMPARE: """\
Two stickers for one prompt. Choose the one that you would rather send.

- Look at the prompt first: a sticker that shows something else does not win by being pretty.
- **Equally good** when you would send either.
- **Both bad** when you would send neither.

The sides are mixed at random and mean nothing.
""",
    CampaignKind.SETS: """\
Two sets of stickers for the same prompts. Choose the set with more variety.

- Look at each set as a whole: poses, viewpoints, expressions, layouts, backgrounds and colours that differ.
- Variety counts while a sticker still shows its prompt: what shows something else adds none.
- How well a single sticker is drawn does not matter here.
- **Equally varied** when you see no difference.

The sides are mixed at random and mean nothing.
""",
}


def default_questions(kind: str) -> list[QuestionSpec]:
    """The rubric of a kind. Raises RubricRefused where a kind has none."""
    if kind not in RUBRICS:
        raise RubricRefused(f"There is no rubric for campaigns of the kind {kind!r}.")
    return RUBRICS[kind]


def check_questions(kind: str, questions: Sequence[QuestionSpec]) -> None:
    """Raises RubricRefused unless the questions can be asked: names, values, labels and keys are distinct, and something can
    pass."""
    names = [question["name"] for question in questions]
    if not names or len(set(names)) != len(names):
        raise RubricRefused("A rubric needs questions with distinct names.")
    # In a comparison one question is asked after the other, so that all may share the arrow keys.
    keys: list[str] = []
    for question in questions:
        values = [choice["value"] for choice in question["choices"]]
        if len(values) < 2 or len(set(values)) != len(values):
            raise RubricRefused(f"The question {question['name']} needs at least two distinct choices.")
        _check_labels(question)
        if kind in COMPARISONS:
            if not {"left", "right"} <= set(values) <= COMPARE_VALUES:
                raise RubricRefused(f"The question {question['name']} must choose among left, right, tie and both_bad.")
            continue
        if not any(choice["accepts"] for choice in question["choices"]):
            raise RubricRefused(f"No choice of the question {question['name']} accepts, so nothing could ever pass.")
        keys += [choice["key"] for choice in question["choices"] if choice["key"]]
    if len(set(keys)) != len(keys):
        raise RubricRefused("Two choices share a key.")
    _check_reasons(questions)


def _check_labels(question: QuestionSpec) -> None:
    seen = set()
    for choice in question["choices"]:
        label = " ".join(choice["label"].split())
        if label.casefold() in seen:
            raise RubricRefused(
                f"Two choices of “{question['text']}” are called “{label}”. Call one of them something else, so that raters can "
                "tell them apart."
            )
        seen.add(label.casefold())


def _check_reasons(questions: Sequence[QuestionSpec]) -> None:
    for question in questions:
        reasons = question.get("reasons", [])
        if len({reason.casefold() for reason in reasons}) != len(reasons):
            raise RubricRefused(f"Two reasons of the question “{question['text']}” are the same.")
        if any(not reason.strip() or len(reason) > MAX_REASON_LENGTH for reason in reasons):
            raise RubricRefused(f"A reason has between 1 and {MAX_REASON_LENGTH} characters.")
        if question.get("needs_reason") and not reasons:
            raise RubricRefused(f"A fail of “{question['text']}” cannot ask for a reason: there are none to give.")
    count = sum(len(question.get("reasons", [])) for question in questions)
    if count > MAX_REASONS:
        raise RubricRefused(f"There are {count} reasons for a fail, but only {MAX_REASONS} digits to give them by.")
