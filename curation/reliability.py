"""Raters beside each other: each one's table of answers by estimated truth, for every question of a campaign, and habits that
deserve a look."""

import json
from dataclasses import dataclass

import numpy as np
from django.db import connection
from django.db.models import F, Q, TextField, Value
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from numpy.typing import NDArray

from accounts.models import User
from curation.dawid_skene import Indices, estimate
from curation.habits import run_flags, speed_flags
from curation.models import Campaign, Judgment, Question
from curation.rules import SIDES
from curation.statistics import seconds_by_rater
from curation.verdicts import preferred

# The newest so many judgments are looked at, so that a page is never late for the sake of old ones.
MOST_JUDGMENTS = 100_000
# The slots of a comparison, from the left, not swapped and swapped.
STOOD = ((0, 1), (1, 0))


@dataclass(frozen=True)
class Said:
    """What judgments say to one question: `values`, all that was said, and for each judgment the `places` [N] of what it says
    among them, -1 where it says nothing."""

    values: list[str]
    places: Indices


@dataclass(frozen=True)
class Judged:
    """Judgments as columns, the newest first: [N] each. `alone`: not as one of a page of the grid; `swapped`: the candidate of a
    comparison stood on the left."""

    items: Indices
    raters: Indices
    alone: NDArray[np.bool_]
    swapped: NDArray[np.bool_]
    said: list[Said]


@dataclass(frozen=True)
class RaterTable:
    """`rows`: (label of the estimated truth, what the rater said of it in percent, in the order of the choices).

    `accuracy` in percent, over items as they come; `judgments` of this rater.
    """

    rater: User
    rows: list[tuple[str, list[float]]]
    accuracy: float
    judgments: int


@dataclass(frozen=True)
class QuestionTables:
    """One question: the labels of its choices, their estimated shares of the truth in percent, and a table a rater, the most
    accurate first. No raters where no two of them judged the same items."""

    question: Question
    labels: list[str]
    shares: list[float]
    raters: list[RaterTable]
    items: int


@dataclass(frozen=True)
class Flag:
    """A habit of a rater that deserves a look: `kind` names it, `sentence` says what was seen."""

    rater: User
    kind: str
    sentence: str


@dataclass(frozen=True)
class Reliability:
    """The tables of each question and the flags, and how many judgments they rest on."""

    tables: list[QuestionTables]
    flags: list[Flag]
    judgments: int


def reliability_of(campaign: Campaign) -> Reliability:
    """Raters beside each other, over the campaign's newest judgments."""
    questions = list(campaign.questions.all())
    judged = _newest(campaign, questions)
    seconds = seconds_by_rater(campaign)
    people = {user.pk: user for user in User.objects.filter(pk__in={*judged.raters.tolist(), *seconds})}
    flags = [Flag(people[pk], "Fast", sentence) for pk, sentence in speed_flags(seconds).items()]
    tables = []
    for question, said in zip(questions, judged.said, strict=True):
        flags += _runs(question, said, judged, people, several=len(questions) > 1)
        tables.append(_tables(campaign, question, said, judged, people))
    return Reliability(tables, sorted(flags, key=lambda flag: str(flag.rater)), judged.items.size)


def _newest(campaign: Campaign, questions: list[Question]) -> Judged:
    """The newest judgments first. They come as one row of arrays, since to make a hundred thousand rows takes longer than all
    that is worked out of them; and of their JSON no more is read than is asked."""
    columns = {
        "items": F("item_id"),
        "raters": F("rater_id"),
        "alone": Q(page=None),
        "orders": Cast("order", TextField()) if campaign.compares else Value(""),
        **{f"said_{place}": KeyTextTransform(question.name, "answers") for place, question in enumerate(questions)},
    }
    standing = Judgment.objects.standing().filter(item__campaign=campaign, item__is_gold=False)
    newest = standing.order_by("-received_at", "-decided_at", "-pk").values(**columns)[:MOST_JUDGMENTS]
    rows, parameters = newest.query.sql_with_params()
    arrays = ", ".join(f"coalesce(array_agg({name}), '{{}}')" for name in columns)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {arrays} FROM ({rows}) newest", parameters)  # noqa: S608 Names of our own, and Django's SQL.
        items, raters, alone, orders, *said = cursor.fetchone()
    swapped = {order: bool(order) and preferred("left", json.loads(order)) != SIDES[0] for order in set(orders)}
    return Judged(
        np.array(items, np.int64),
        np.array(raters, np.int64),
        np.array(alone, np.bool_),
        np.array([swapped[order] for order in orders], np.bool_),
        [_numbered(values) for values in said],
    )


def _numbered(values: list[str | None]) -> Said:
    numbers = {value: number for number, value in enumerate(sorted({value for value in values if value is not None}))}
    return Said(list(numbers), np.array([-1 if value is None else numbers[value] for value in values], np.int64))


def _runs(question: Question, said: Said, judged: Judged, people: dict[int, User], *, several: bool) -> list[Flag]:
    """Runs of what was said as it was shown: left is left, whatever stood there. A page of the grid is judged at one stroke, in
    which what nobody marked passes: its answers make no run."""
    looked_at = judged.alone & (said.places >= 0)
    raters, places = judged.raters[looked_at][::-1], said.places[looked_at][::-1]
    by_rater = {int(pk): [said.values[place] for place in places[raters == pk]] for pk in np.unique(raters)}
    labels = {choice["value"]: choice["label"] for choice in question.choices}
    before = f"{question.text} " if several else ""
    return [Flag(people[pk], "Same answer", before + sentence) for pk, sentence in run_flags(by_rater, labels).items()]


def _tables(
    campaign: Campaign, question: Question, said: Said, judged: Judged, people: dict[int, User]
) -> QuestionTables:
    choices = _choices(campaign, question)
    labels = list(choices.values())
    numbers = {value: number for number, value in enumerate(choices)}
    # By how the two stood, of each value that was said its choice, and -1 where it is none; so also for who said nothing.
    meant = np.array(
        [
            [*(numbers.get(preferred(value, order) if campaign.compares else value, -1) for value in said.values), -1]
            for order in STOOD
        ]
    )
    answers = meant[judged.swapped.astype(np.int64), said.places]
    given = answers >= 0
    answers = answers[given]
    items, item_of = np.unique(judged.items[given], return_inverse=True)
    raters, rater_of = np.unique(judged.raters[given], return_inverse=True)
    if answers.size == items.size:
        # Nobody judged what somebody else did: nothing says who is right.
        return QuestionTables(question, labels, [], [], items.size)
    found = estimate(item_of, rater_of, answers)
    # Choices that nobody took have no column.
    kinds = found.shares.size
    counts = np.bincount(rater_of)
    tables = [
        RaterTable(
            people[pk],
            [(labels[k], [100 * float(share) for share in found.tables[index, k]]) for k in range(kinds)],
            100 * found.accuracy(index),
            int(counts[index]),
        )
        for index, pk in enumerate(raters.tolist())
    ]
    tables.sort(key=lambda table: -table.accuracy)
    return QuestionTables(question, labels[:kinds], [100 * float(share) for share in found.shares], tables, items.size)


def _choices(campaign: Campaign, question: Question) -> dict[str, str]:
    """Value -> label; in a comparison the sides are named by what they were, not by where they stood."""
    named = {choice["value"]: choice["label"] for choice in question.choices}
    if not campaign.compares:
        return named
    sides = dict(zip(SIDES, ("Baseline", "Candidate"), strict=True))
    return sides | {value: label for value, label in named.items() if value not in ("left", "right")}
