"""A rater's own keys: what the rating screen does at which key, where that is not the usual."""

from itertools import chain
from typing import Any

from django.db.models.functions import Now

from accounts.models import User
from curation.malformed import UNSTORABLE, Malformed, quote
from curation.models import COMPARISONS, CampaignKind, RatingKeys

# Those of static/js/rate/keymap.js.
COMMANDS = frozenset(
    {
        "undo",
        "skip",
        "skip_why",
        "flag",
        "background",
        "size",
        "edges",
        "zoom",
        "closer",
        "view",
        "guidelines",
        "help",
        "pass_all",
    }
)
NAMED_KEYS = frozenset(
    {"ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Backspace", "Delete", "Home", "End", "PageUp", "PageDown"}
)
MOST_QUESTIONS, LONGEST_NAME = 20, 60

Keys = dict[str, Any]


def keys_of(rater: User) -> Keys:
    """The rater's own keys; empty where they have changed none."""
    row = RatingKeys.objects.filter(rater=rater).first()
    return row.keys if row else {}


def keep_keys(rater: User, value: object) -> Keys:
    """Take these as the rater's own keys, in the place of those before. Raises Malformed, and then nothing has changed."""
    keys = read_keys(value)
    RatingKeys.objects.update_or_create(rater=rater, defaults={"keys": keys, "updated_at": Now()})
    return keys


def read_keys(value: object) -> Keys:
    """Keys as a client sends them, in one spelling. Raises Malformed."""
    found = _read_object(value, "keys")
    unknown = set(found) - {"commands", "answers"}
    if unknown:
        raise Malformed(f"Keys are of commands and answers, not of {quote(min(unknown))}.")
    commands = {name: _read_key(key) for name, key in _read_object(found.get("commands"), "commands").items()}
    for name in commands:
        if name not in COMMANDS:
            raise Malformed(f"There is no command {quote(name)}.")
    _check_distinct(list(commands.values()), "on the rating screen")
    answers = {kind: _read_kind(kind, part) for kind, part in _read_object(found.get("answers"), "answers").items()}
    for kind, questions in answers.items():
        # The questions of a comparison are asked in turn, by the same keys.
        each = [list(choices.values()) for choices in questions.values()]
        together = each if kind in COMPARISONS else [list(chain(*each))]
        for keys in together:
            _check_distinct([*keys, *commands.values()], f"in {kind} campaigns")
    return {"commands": commands, "answers": answers}


def _read_kind(kind: str, value: object) -> dict[str, dict[str, str]]:
    if kind not in CampaignKind.values:
        raise Malformed(f"There are no campaigns of the kind {quote(kind)}.")
    questions = {}
    for question, choices in _read_object(value, kind).items():
        questions[question] = {name: _read_key(key) for name, key in _read_object(choices, question).items()}
    return questions


def _read_object(value: object, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MOST_QUESTIONS:
        raise Malformed(f"The keys of {quote(name)} must be an object of at most {MOST_QUESTIONS} names.")
    for key in value:
        if len(key) > LONGEST_NAME or UNSTORABLE.search(key):
            raise Malformed(f"{quote(key)} is too long for a name.")
    return value


def _read_key(value: object) -> str:
    if isinstance(value, str) and value in NAMED_KEYS:
        return value
    if not isinstance(value, str) or len(value) != 1 or not value.isprintable() or value.isspace():
        raise Malformed(f"{quote(str(value))} is no key that can be chosen.")
    if value.isdigit():
        raise Malformed(f"The digit {value} gives a reason, so it cannot be chosen.")
    return value.lower()


def _check_distinct(keys: list[str], where: str) -> None:
    twice = [key for key in keys if keys.count(key) > 1]
    if twice:
        raise Malformed(f"The key {quote(twice[0])} would mean two things {where}.")
