"""Rounds of examples: where a revision of the guidelines asks so, raters answer what it changed in the examples before they get
anything more. As a qualification round it has a bar; unlike there the rater hears after each answer what is right and why, and
may try again as often as they like."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.db.models import OuterRef, QuerySet, Subquery

from accounts.models import User
from curation.examples import examples_of, samples_of
from curation.models import (
    Campaign,
    CampaignEvent,
    CampaignRater,
    CampaignState,
    ExampleAnswer,
    ExampleRound,
    GuidelineExample,
    GuidelineRevision,
    Question,
)
from curation.submissions import check_answers

ASKED = (
    "The examples of the guidelines have changed. Answer those that changed first: you are told after each what is right. What you "
    "judged is kept."
)


class RoundRefused(Exception):
    """This answer was not taken; the message says why, for a person."""


@dataclass
class Round:
    """An attempt at the examples that `revision`, the newest, asks this rater first; `answered` are those of this attempt
    (samples -> whether it was right), `last` is the attempt before at the same revision's. Attempts are counted in the campaign.
    `is_over` says that nothing is asked of them any more."""

    revision: GuidelineRevision
    examples: list[GuidelineExample] = field(default_factory=list)
    answered: dict[tuple[int, ...], bool] = field(default_factory=dict)
    attempt: int = 1
    last: ExampleRound | None = None
    is_over: bool = False

    @property
    def left(self) -> list[GuidelineExample]:
        """Those that are still to be answered, in their order."""
        return [row for row in self.examples if samples_of(row) not in self.answered]

    @property
    def right(self) -> int:
        return sum(self.answered.values())


def with_asked(places: "QuerySet[CampaignRater]") -> Any:
    """The places with what the newest revision of their campaign asks first, as `asks_up_to`."""
    revisions = GuidelineRevision.objects.filter(campaign=OuterRef("campaign")).order_by("-number")
    return places.annotate(asks_up_to=Subquery(revisions.values("asks_up_to")[:1]))


def is_asked(place: CampaignRater, asks_up_to: int | None) -> bool:
    """Whether this rater still has to pass the examples that the guidelines ask first."""
    return (asks_up_to or 0) > place.examples_passed


@transaction.atomic
def round_of(campaign: Campaign, rater: User) -> Round:
    """What this rater has to answer. Raises RoundRefused where they do not rate in the campaign."""
    return _open_round(campaign, rater)


@transaction.atomic
def answer_example(
    campaign: Campaign, rater: User, *, example: int, attempt: int, answers: Mapping[str, str]
) -> tuple[ExampleAnswer, Round, ExampleRound | None]:
    """Take an answer in: the answer with whether it is right, what is left, and the attempt where this ended it. The same sent
    again changes nothing. Raises RoundRefused, and Malformed for answers that the questions do not have."""
    now = _open_round(campaign, rater)
    known = ExampleAnswer.objects.filter(campaign=campaign, rater=rater, example=example, attempt=attempt).first()
    if known is not None:
        ended = ExampleRound.objects.filter(campaign=campaign, rater=rater, attempt=attempt).first()
        return known, now, ended
    row = next((row for row in now.left if row.pk == example), None)
    if now.is_over or row is None or attempt != now.attempt:
        raise RoundRefused("The examples have changed meanwhile. Load the page again to go on.")
    questions = list(campaign.questions.all())
    check_answers(dict(answers), questions, len(row.samples))
    given = ExampleAnswer.objects.create(
        campaign=campaign,
        rater=rater,
        up_to=now.revision.asks_up_to,
        attempt=attempt,
        example=row,
        answers=dict(answers),
        right=_is_right(row, answers, questions),
    )
    now.answered[samples_of(row)] = given.right
    return given, now, _end(now, campaign, rater)


def _is_right(row: GuidelineExample, answers: Mapping[str, str], questions: Iterable[Question]) -> bool:
    """What may be left out is not wrong where it was: the screen sends what has to be answered once all of that is there."""
    known = [question.name for question in questions if question.required or question.name in answers]
    return all(answers.get(name) == value for name, value in row.answers.items() if name in known)


def rounds_by_revision(campaign: Campaign, numbers: Iterable[int]) -> dict[int, dict[int, list[ExampleRound]]]:
    """Number of an asking revision -> rater id -> their attempts, the first first."""
    found: dict[int, dict[int, list[ExampleRound]]] = {}
    for row in ExampleRound.objects.filter(campaign=campaign, up_to__in=list(numbers)).order_by("attempt"):
        found.setdefault(row.up_to, {}).setdefault(row.rater_id, []).append(row)
    return found


def _open_round(campaign: Campaign, rater: User) -> Round:
    """With the rater's place locked: two tabs at once answer one after the other, and a lease waits for the end."""
    places = CampaignRater.objects.filter(campaign=campaign, rater=rater, removed_at=None)
    place = places.select_for_update(no_key=True).first()
    newest = campaign.revisions.first()
    if place is None or newest is None:
        raise RoundRefused("You are not one of the raters of this campaign.")
    if not Campaign.objects.filter(pk=campaign.pk, state=CampaignState.OPEN).exists():
        raise RoundRefused("This campaign is not open, so nothing is asked now.")
    if not is_asked(place, newest.asks_up_to):
        return Round(newest, is_over=True)
    asked = [row for row in examples_of(newest) if (row.asked_since or 0) > place.examples_passed]
    last = ExampleRound.objects.filter(campaign=campaign, rater=rater).order_by("-attempt").first()
    now = Round(newest, asked, attempt=last.attempt + 1 if last else 1)
    now.last = last if last and last.up_to == newest.asks_up_to else None
    answered = ExampleAnswer.objects.filter(campaign=campaign, rater=rater, attempt=now.attempt)
    told = {samples_of(row.example): row for row in answered.select_related("example").order_by("pk")}
    for row in asked:
        given = told.get(samples_of(row))
        # What was changed since, without being asked anew, is answered as it is now.
        if given is not None and given.example.answers == row.answers:
            now.answered[samples_of(row)] = given.right
    if _end(now, campaign, rater) is not None:
        return _open_round(campaign, rater)
    return now


def _end(now: Round, campaign: Campaign, rater: User) -> ExampleRound | None:
    """The attempt's end, where nothing is left of it; a later revision may have left out what was."""
    if now.left:
        return None
    of, bar = len(now.examples), now.revision.asks_percent
    ended = ExampleRound.objects.create(
        campaign=campaign,
        rater=rater,
        up_to=now.revision.asks_up_to,
        attempt=now.attempt,
        right=now.right,
        of=of,
        percent=bar,
        passed=100 * now.right >= bar * of,
    )
    if ended.passed:
        places = CampaignRater.objects.filter(campaign=campaign, rater=rater)
        places.filter(examples_passed__lt=ended.up_to).update(examples_passed=ended.up_to)
        detail = {"rater": rater.pk, "revision": ended.up_to, "right": ended.right, "of": of, "percent": bar}
        CampaignEvent.objects.create(campaign=campaign, kind="examples passed", by=rater, detail=detail)
    return ended
