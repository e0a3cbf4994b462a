"""Details: why a question was failed. Reasons by their names, words by their places in the prompt, a point in the picture."""

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from curation.malformed import Malformed, quote
from curation.models import Mark, Question
from generation.models import Prompt

MOST = 100


class Detail(TypedDict, total=False):
    """`words`: places in `prompt_words`, ascending. `point`: x and y from the top left of the picture, 0 to 1."""

    reasons: list[str]
    words: list[int]
    point: list[float]


Details = dict[str, Detail]  # By question.


def prompt_words(prompt: Prompt) -> list[str]:
    """What images are judged by, cut where it has spaces."""
    return prompt.taught_as.split()


def read_details(value: object) -> Details:
    """What a client sent, in one spelling: what is empty is left out. Raises Malformed."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed("The details must be an object of question names and what was wrong.")
    return {name: detail for name, part in value.items() if (detail := _read_detail(name, part))}


def check_details(
    details: Details, answers: Mapping[str, str], questions: Iterable[Question], *, words: list[str]
) -> None:
    """Raises Malformed unless the details are about questions that were failed, and each fail that needs a reason has one."""
    known = {question.name: question for question in questions}
    failed = {name for name, value in answers.items() if known[name].is_fail(value)}
    for name, detail in details.items():
        if name not in known:
            raise Malformed(f"This campaign has no question {quote(name)}, so that has no details.")
        if name not in failed:
            raise Malformed(f"The question {name} was not failed, so it has no details.")
        _check_detail(known[name], detail, words)
    for name in failed:
        if known[name].needs_reason and known[name].reasons and not details.get(name, {}).get("reasons"):
            raise Malformed(f"A fail of {name} needs a reason here: {', '.join(known[name].reasons)}.")


def _check_detail(question: Question, detail: Detail, words: list[str]) -> None:
    for reason in detail.get("reasons", []):
        if reason not in question.reasons:
            raise Malformed(f"{quote(reason)} is no reason of the question {question.name}.")
    if "words" in detail:
        if question.marks != Mark.WORDS:
            raise Malformed(f"No words are marked for the question {question.name}.")
        if detail["words"][-1] >= len(words):
            raise Malformed(f"The prompt has {len(words)} words; there is none at place {detail['words'][-1]}.")
    if "point" in detail and question.marks != Mark.POINT:
        raise Malformed(f"No point is marked for the question {question.name}.")


def _read_detail(name: str, part: object) -> Detail:
    if not isinstance(part, dict):
        raise Malformed(f"The details of {quote(name)} must be an object with reasons, words or a point.")
    unknown = [key for key in part if key not in ("reasons", "words", "point")]
    if unknown:
        raise Malformed(f"The details of {quote(name)} cannot have {quote(unknown[0])}: only reasons, words and point.")
    detail: Detail = {}
    if reasons := _read_list(name, "reasons", part.get("reasons")):
        if not all(isinstance(reason, str) for reason in reasons):
            raise Malformed(f"The reasons of {quote(name)} must be texts.")
        detail["reasons"] = list(dict.fromkeys(reasons))
    if words := _read_list(name, "words", part.get("words")):
        if not all(isinstance(place, int) and not isinstance(place, bool) and place >= 0 for place in words):
            raise Malformed(f"The words of {quote(name)} must be places in the prompt, counted from 0.")
        detail["words"] = sorted(set(words))
    if part.get("point") is not None:
        detail["point"] = _read_point(name, part["point"])
    return detail


def _read_list(name: str, key: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MOST:
        raise Malformed(f"The {key} of {quote(name)} must be a list.")
    return value


def _read_point(name: str, value: Any) -> list[float]:
    """Rounded, so that the same point sent again is the same judgment whatever the client's arithmetic."""
    is_pair = isinstance(value, list) and len(value) == 2
    if not is_pair or not all(
        isinstance(each, int | float) and not isinstance(each, bool) and 0 <= each <= 1 for each in value
    ):
        raise Malformed(f"The point of {quote(name)} must be two numbers from 0 to 1.")
    return [round(float(each), 4) for each in value]
