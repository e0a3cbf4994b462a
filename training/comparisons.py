"""The blind comparison behind an evaluation: opened with a name that says nothing, read back as votes.

Slot 0 is the baseline and slot 1 the candidate; of sets the first half of the slots and the second. A judgment says left or
right, and in which order its rater saw the slots.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db.models import F, OuterRef, Subquery, Window
from django.db.models.functions import RowNumber

from curation import statistics
from curation.campaigns import CampaignRefused, create_compare_campaign, create_set_campaign
from curation.models import Campaign, CampaignKind, CampaignState, Judgment, JudgmentAction
from curation.questions import LONGEST_TEXT
from curation.rubrics import QuestionSpec, default_questions
from curation.verdicts import preferred
from generation.models import Sample
from jobs.context import JobFailed
from training.evaluation_sets import make_sets
from training.models import Evaluation
from training.win_rates import Vote

if TYPE_CHECKING:
    from accounts.models import User

MOST_FURTHER = 3


def open_comparison(evaluation: Evaluation, pairs: Sequence[tuple[Sample, Sample]]) -> Campaign:
    """Create and open the campaign of an evaluation. Its name tells raters neither the versions nor the sides.

    Pairs whose two images are the same file are left out: nobody could prefer one. Raises JobFailed with a sentence.
    """
    if evaluation.compares_sets:
        return _open_sets(evaluation, pairs)
    different = [(first.prompt, first, second) for first, second in pairs if first.image != second.image]
    if not different:
        raise JobFailed("The two versions draw the same images, so there is nothing to compare.", retry=False)
    try:
        return create_compare_campaign(
            f"Side by side {evaluation.pk}", different, **_judging(evaluation, CampaignKind.COMPARE)
        )
    except CampaignRefused as refused:
        raise JobFailed(str(refused.args[0]), retry=False) from refused


def _open_sets(evaluation: Evaluation, pairs: Sequence[tuple[Sample, Sample]]) -> Campaign:
    sets = make_sets(evaluation, pairs)
    if not sets:
        raise JobFailed(
            f"A set has {evaluation.set_size} images; both versions drew too few of the same prompts for one.",
            retry=False,
        )
    different = [
        (first, second) for first, second in sets if any(a.image != b.image for a, b in zip(first, second, strict=True))
    ]
    if not different:
        raise JobFailed("The two versions draw the same images, so there is nothing to compare.", retry=False)
    try:
        return create_set_campaign(
            f"Set against set {evaluation.pk}", different, **_judging(evaluation, CampaignKind.SETS)
        )
    except CampaignRefused as refused:
        raise JobFailed(str(refused.args[0]), retry=False) from refused


def _judging(evaluation: Evaluation, kind: str) -> dict[str, Any]:
    """Who is asked what, and how often, in the words of the functions that make campaigns."""
    return {
        "raters": list(evaluation.raters.all()),
        "overlap": evaluation.overlap,
        "max_overlap": evaluation.max_overlap,
        "questions": _questions(evaluation, kind),
        "by": evaluation.created_by,
    }


def why_not_asked(further: Sequence[str]) -> str:
    """Why these cannot be asked after the question that decides, as a sentence; empty where they can."""
    if len(further) > MOST_FURTHER:
        return f"At most {MOST_FURTHER} more questions: each is a press for every pair. These are {len(further)}."
    if any(not text.strip() or len(text) > LONGEST_TEXT for text in further):
        return f"A question has between 1 and {LONGEST_TEXT} characters."
    if len({text.casefold() for text in further}) < len(further):
        return "One of the questions is there twice."
    return ""


def _questions(evaluation: Evaluation, kind: str) -> list[QuestionSpec]:
    """The question that decides, and the further ones with the same choices."""
    first = default_questions(kind)[0]
    further: list[QuestionSpec] = [
        {"name": further_name(place), "text": text, "choices": first["choices"]}
        for place, text in enumerate(evaluation.further)
    ]
    return [first, *further]


def further_name(place: int) -> str:
    """What answers to the further question at this place are kept under."""
    return f"further_{place + 1}"


def standing_votes(campaign: Campaign, question: str | None = None) -> list[Vote]:
    """The votes that stand, by the question of this name or else by the one that decides: answers that were neither superseded
    nor undone.

    Where a pair may get more judgments than each does, they are the first `overlap` of each: those that came on top were asked
    for because these contradict each other, and would pull a rate over all pairs towards the contested ones, which is a half.

    Of sets of many prompts a vote's prompt is the first of its group, which no other group has.
    """
    question = question or default_questions(campaign.kind)[0]["name"]
    # When they answered for the first time: who thinks again does not become the last.
    began = Judgment.objects.filter(assignment=OuterRef("assignment"), action=JudgmentAction.ANSWER).order_by(
        "received_at"
    )
    rows = Judgment.objects.standing().filter(item__campaign=campaign, item__is_gold=False)
    if campaign.most > campaign.overlap:
        nth = Window(
            RowNumber(),
            partition_by="item_id",
            order_by=[Subquery(began.values("received_at")[:1]), F("assignment_id")],
        )
        rows = rows.annotate(nth=nth).filter(nth__lte=campaign.overlap)
    fields = ("answers", "order", "item__prompt_id", "item__bucket")
    return [
        Vote(prompt=prompt, choice=preferred(answers[question], order), left=preferred("left", order), bucket=bucket)
        for answers, order, prompt, bucket in rows.order_by("item__position", "rater_id").values_list(*fields)
        if question in answers
    ]


def judges_in(campaign: Campaign | None, user: "User") -> bool:
    """Whether this person still judges in the campaign, and so must not see how it stands."""
    if campaign is None or campaign.state == CampaignState.CLOSED:
        return False
    # Of the prefetched rows, so that a list of evaluations asks once.
    return any(each.rater_id == user.pk and each.removed_at is None for each in campaign.memberships.all())


def progress_of(campaign: Campaign) -> tuple[int, int]:
    """(judgments counted, judgments wanted if every pair that is open is decided by the next that it needs)."""
    progress = statistics.progress_of([campaign])[campaign.pk]
    return progress.judgments, progress.wanted
