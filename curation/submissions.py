"""Submissions: a judgment as a client sends it, read without trust. What is wrong with one row is said of that row."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from curation.details import Details, read_details
from curation.malformed import UNSTORABLE, Malformed, quote, storable
from curation.models import Assignment, JudgmentAction, Question
from curation.picks import picked_places

MAX_REASON = 300
MAX_ID = 2**63 - 1
MAX_PLACES = 1000
MAX_REVISION = 2**31 - 1
# Clocks may be wrong by days; a year beyond these is no clock, and could not be stored and shown everywhere.
YEARS = range(2000, 2101)


@dataclass(frozen=True)
class Submission:
    """A readable row. `order` says where each picture of the lease stood, from left to right; None is as leased. `page`,
    `place` and `page_size` are there where several items were on the screen at once; `guideline_revision` and
    `question_revision` are the numbers of the revisions that the client showed."""

    id: uuid.UUID
    assignment: int
    action: str
    answers: dict[str, str]
    details: Details
    reason: str
    order: list[int] | None
    shown_at: datetime | None
    decided_at: datetime | None
    supersedes: uuid.UUID | None
    page: uuid.UUID | None = None
    place: int | None = None
    page_size: int | None = None
    guideline_revision: int | None = None
    question_revision: int | None = None


def read_submission(row: object) -> Submission:
    """The row as a Submission. Raises Malformed."""
    if not isinstance(row, dict):
        raise Malformed("A judgment is an object with id, assignment and answers.")
    action = row.get("action")
    if action in (None, ""):
        action = JudgmentAction.ANSWER
    if not isinstance(action, str) or action not in JudgmentAction.values:
        raise Malformed(f"The action must be one of {', '.join(JudgmentAction.values)}.")
    supersedes = row.get("supersedes")
    page, place, page_size = _read_page(row.get("page"), row.get("place"), row.get("page_size"))
    return Submission(
        id=_read_uuid(row.get("id"), "id"),
        assignment=_read_assignment(row.get("assignment")),
        action=action,
        answers=_read_answers(row.get("answers"), needed=action == JudgmentAction.ANSWER),
        details=read_details(row.get("details")) if action == JudgmentAction.ANSWER else {},
        reason=_read_reason(row.get("reason")),
        order=_read_order(row.get("order")),
        shown_at=_read_moment(row.get("shown_at"), "shown_at"),
        decided_at=_read_moment(row.get("decided_at"), "decided_at"),
        supersedes=None if supersedes is None else _read_uuid(supersedes, "supersedes"),
        page=page,
        place=place,
        page_size=page_size,
        guideline_revision=_read_revision(row.get("guideline_revision"), "guideline_revision"),
        question_revision=_read_revision(row.get("question_revision"), "question_revision"),
    )


def check_answers(answers: dict[str, str], questions: list[Question], pictures: int) -> None:
    """Raises Malformed unless the answers fit the rubric, and of so many pictures name only those that there are."""
    known = {question.name: question for question in questions}
    for name, value in answers.items():
        if name not in known:
            raise Malformed(f"This campaign has no question {quote(name)}.")
        if not known[name].takes(value):
            raise Malformed(f"{quote(value)} is no choice of the question {name}.")
        if known[name].multiple and max(picked_places(value), default=0) > pictures:
            raise Malformed(f"There are {pictures} pictures, so {quote(value)} is no choice of the question {name}.")
    missing = [question.name for question in questions if question.required and question.name not in answers]
    if missing:
        raise Malformed(f"No answer to {', '.join(missing)}.")


def slots_shown(order: list[int] | None, assignment: Assignment) -> list[int]:
    """The slots from left to right as the client showed them. Raises Malformed."""
    leased: list[int] = assignment.order
    if order is None:
        return leased
    if sorted(order) != list(range(len(leased))):
        raise Malformed(f"The order must name each of the {len(leased)} pictures once, by its place in the lease.")
    return [leased[place] for place in order]


def echo_id(row: object) -> str | None:
    """The row's id as it was sent, where it can be sent back."""
    value: Any = row.get("id") if isinstance(row, dict) else None
    return value if isinstance(value, str) and len(value) <= 100 and not UNSTORABLE.search(value) else None


def _read_uuid(value: object, field: str) -> uuid.UUID:
    try:
        return uuid.UUID(value) if isinstance(value, str) else _no_uuid(field)
    except ValueError:
        return _no_uuid(field)


def _no_uuid(field: str) -> uuid.UUID:
    raise Malformed(f"The {field} must be a UUID.")


def _read_assignment(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_ID:
        raise Malformed("The assignment must be the number that came with the lease.")
    return value


def _read_answers(value: object, *, needed: bool) -> dict[str, str]:
    if value is None and not needed:
        return {}
    if not isinstance(value, dict):
        raise Malformed("The answers must be an object of question names and values.")
    if not needed:
        return {}
    for name, answer in value.items():
        if not isinstance(answer, str) or UNSTORABLE.search(answer) or UNSTORABLE.search(name):
            raise Malformed(f"The answer to {quote(name)} must be a plain text value.")
    return value


def _read_reason(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed("The reason must be text.")
    return storable(value).strip()[:MAX_REASON]


def _read_order(value: object) -> list[int] | None:
    """A client that only knows addresses sends those: they say that it showed what it was given, as it was given."""
    if value is None or value == []:
        return None
    if not isinstance(value, list) or len(value) > 100:
        raise Malformed("The order must be a list.")
    if all(isinstance(place, str) for place in value):
        return None
    if not all(isinstance(place, int) and not isinstance(place, bool) for place in value):
        raise Malformed("The order must be a list of places.")
    return value


def _read_page(page: object, place: object, size: object) -> tuple[uuid.UUID | None, int | None, int | None]:
    """The page that a judgment was made on, where its item stood there, and how many there were; none of these, or all."""
    if page is None and place is None and size is None:
        return None, None, None
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_PLACES:
        raise Malformed(f"The size of the page must be a number from 1 to {MAX_PLACES}.")
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < size:
        raise Malformed("The place on the page must be a number from 0 on, and less than the size of the page.")
    return _read_uuid(page, "page"), place, size


def _read_revision(value: object, field: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_REVISION:
        raise Malformed(f"The {field} must be the number that came with the lease.")
    return value


def _read_moment(value: object, field: str) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        raise Malformed(f"The {field} must be a time such as 2026-11-23T09:30:00Z.")
    if moment.year not in YEARS:
        raise Malformed(f"The {field} lies in the year {moment.year}: the clock of this device cannot be right.")
    # The database refuses offsets of 16 hours and more, which ISO 8601 allows; in UTC every moment can be stored.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
