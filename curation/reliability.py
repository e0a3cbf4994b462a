"""Raters beside each other: each one's table of answers by estimated truth, for every question of a campaign, and habits that
deserve a look."""

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from django.db.models.fields.json import KeyTextTransform

from accounts.models import User
from curation.dawid_skene import estimate
from curation.habits import run_flags, speed_flags
from curation.models import Campaign, Judgment, Question
from curation.rules import SIDES
from curation.statistics import seconds_by_rater
from curation.verdicts import preferred

# The newest so many judgments are looked at, so that a page is never late for the sake of old ones.
MOST_JUDGMENTS = 100_000


class Row(NamedTuple):
    """A judgment: what was said, by question, None where nothing was; `order` as the two stood in a comparison."""

    item: int
    rater: int
    page: UUID | None
    order: list[int]
    said: tuple[str | None, ...]


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
    rows = _newest(campaign, questions)
    seconds = seconds_by_rater(campaign)
    people = {user.pk: user for user in User.objects.filter(pk__in={row.rater for row in rows} | seconds.keys())}
    flags = [Flag(people[pk], "Fast", sentence) for pk, sentence in speed_flags(seconds).items()]
    tables = []
    for place, question in enumerate(questions):
        flags += _runs(question, place, rows, people, several=len(questions) > 1)
        tables.append(_tables(campaign, question, place, rows, people))
    return Reliability(tables, sorted(flags, key=lambda flag: str(flag.rater)), len(rows))


def _newest(campaign: Campaign, questions: list[Question]) -> list[Row]:
    """The newest judgments first. Of their JSON no more is read than is asked: reading it is most of the work."""
    columns = ["item_id", "rater_id", "page", *(["order"] if campaign.compares else [])]
    standing = Judgment.objects.standing().filter(item__campaign=campaign, item__is_gold=False)
    rows = standing.order_by("-received_at", "-decided_at", "-pk").values_list(
        *columns, *(KeyTextTransform(question.name, "answers") for question in questions)
    )[:MOST_JUDGMENTS]
    if campaign.compares:
        return [Row(item, rater, page, order, tuple(said)) for item, rater, page, order, *said in rows]
    return [Row(item, rater, page, [], tuple(said)) for item, rater, page, *said in rows]


def _runs(question: Question, place: int, rows: list[Row], people: dict[int, User], *, several: bool) -> list[Flag]:
    """Runs of what was said as it was shown: left is left, whatever stood there. A page of the grid is judged at one stroke, in
    which what nobody marked passes: its answers make no run."""
    said: defaultdict[int, list[str]] = defaultdict(list)
    for row in reversed(rows):
        if row.page is None and (value := row.said[place]) is not None:
            said[row.rater].append(value)
    labels = {choice["value"]: choice["label"] for choice in question.choices}
    before = f"{question.text} " if several else ""
    return [Flag(people[pk], "Same answer", before + sentence) for pk, sentence in run_flags(said, labels).items()]


def _tables(
    campaign: Campaign, question: Question, place: int, rows: list[Row], people: dict[int, User]
) -> QuestionTables:
    choices = _choices(campaign, question)
    labels = list(choices.values())
    places = {value: index for index, value in enumerate(choices)}
    said = [
        (row.item, row.rater, places[value])
        for row in rows
        if (given := row.said[place]) is not None and (value := _value(campaign, given, row.order)) in places
    ]
    items = {pk: index for index, pk in enumerate(sorted({item for item, _, _ in said}))}
    raters = {pk: index for index, pk in enumerate(sorted({rater for _, rater, _ in said}))}
    if len(said) == len(items):
        # Nobody judged what somebody else did: nothing says who is right.
        return QuestionTables(question, labels, [], [], len(items))
    found = estimate(
        [items[item] for item, _, _ in said], [raters[rater] for _, rater, _ in said], [value for _, _, value in said]
    )
    # Choices that nobody took have no column.
    kinds = found.shares.size
    counts = dict.fromkeys(raters, 0)
    for _, rater, _ in said:
        counts[rater] += 1
    tables = [
        RaterTable(
            people[pk],
            [(labels[k], [100 * float(share) for share in found.tables[index, k]]) for k in range(kinds)],
            100 * found.accuracy(index),
            counts[pk],
        )
        for pk, index in raters.items()
    ]
    tables.sort(key=lambda table: -table.accuracy)
    return QuestionTables(question, labels[:kinds], [100 * float(share) for share in found.shares], tables, len(items))


def _choices(campaign: Campaign, question: Question) -> dict[str, str]:
    """Value -> label; in a comparison the sides are named by what they were, not by where they stood."""
    named = {choice["value"]: choice["label"] for choice in question.choices}
    if not campaign.compares:
        return named
    sides = dict(zip(SIDES, ("Baseline", "Candidate"), strict=True))
    return sides | {value: label for value, label in named.items() if value not in ("left", "right")}


def _value(campaign: Campaign, value: str, order: list[int]) -> str:
    return preferred(value, order) if campaign.compares else value
