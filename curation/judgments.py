"""Judgments: taking them in, each on its own, once, and for good."""

# ruff: noqa: S608 (Statements are put together from this module's own constants.)

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import IntegrityError, transaction
from django.db.models import prefetch_related_objects
from django.db.models.functions import Now
from django.utils import timezone

from accounts.models import User
from accounts.rows import Columns, execute_prepared, fetch_prepared
from curation import tallies
from curation.details import check_details, prompt_words
from curation.malformed import Malformed
from curation.models import (
    Assignment,
    AssignmentState,
    Campaign,
    CampaignState,
    GuidelineRevision,
    Item,
    Judgment,
    JudgmentAction,
    Question,
)
from curation.order import rerank
from curation.questions import as_questions, ask_the_same
from curation.sets import are_whole
from curation.standing import review
from curation.submissions import Submission, check_answers, echo_id, read_submission, slots_shown
from curation.verdicts import refresh_verdicts

# So many rows are taken in by one transaction, and so many in all by one request.
ROWS_AT_ONCE, MAX_ROWS = 200, 10_000
STORED, DUPLICATE, REJECTED = "stored", "duplicate", "rejected"
STATE_AFTER = {
    JudgmentAction.ANSWER: AssignmentState.JUDGED,
    JudgmentAction.SKIP: AssignmentState.RELEASED,
    JudgmentAction.FLAG: AssignmentState.RELEASED,
    JudgmentAction.UNDO: AssignmentState.LEASED,
}
ITEM, CAMPAIGN = Columns(Item), Columns(Campaign)
ASSIGNMENT, JUDGMENT = Columns(Assignment), Columns(Judgment)
# What is asked of a rater twice is counted together: who answers the one holds both. The numbers are an array, worked out before
# any row is waited for: what a join finds is looked for again once the wait is over, and of a union not found.
LOCK_ITEMS = f"""
SELECT {ITEM.sql} FROM curation_item WHERE id = ANY(ARRAY(
    WITH mine AS MATERIALIZED (SELECT item_id, rater_id FROM curation_assignment WHERE id = ANY(%s::bigint[]) AND rater_id = %s)
    SELECT item_id FROM mine
    UNION ALL SELECT p.of_id FROM mine JOIN curation_probe p ON p.item_id = mine.item_id
    UNION ALL SELECT p.item_id FROM mine JOIN curation_probe p ON p.of_id = mine.item_id AND p.rater_id = mine.rater_id))
ORDER BY id FOR NO KEY UPDATE
"""
CAMPAIGNS = f"""
SELECT {CAMPAIGN.sql}, (SELECT removed_at FROM curation_campaignrater r WHERE r.campaign_id = curation_campaign.id AND r.rater_id = %s)
FROM curation_campaign WHERE id = ANY(%s::bigint[])
"""
MINE = f"""
SELECT {ASSIGNMENT.sql}, expires_at > statement_timestamp(), statement_timestamp()
FROM curation_assignment WHERE id = ANY(%s::bigint[]) AND rater_id = %s ORDER BY id
"""
KNOWN = f"SELECT {JUDGMENT.sql} FROM curation_judgment WHERE id = ANY(%s::uuid[]) OR assignment_id = ANY(%s::bigint[])"
REVISIONS = """
SELECT id, campaign_id, number, questions::json FROM curation_questionrevision
WHERE id = ANY(%s::bigint[]) OR (campaign_id = ANY(%s::bigint[]) AND number = ANY(%s::int[]))
"""
COLUMNS = ", ".join(f'"{name}"' for name in JUDGMENT.names)
STORE = f"""
INSERT INTO curation_judgment ({COLUMNS})
SELECT {COLUMNS} FROM json_populate_recordset(NULL::curation_judgment, %s::json)
"""
# By number, as the rater's own lease renews what they hold: in another order each could wait for the other.
LOCK_ASSIGNMENTS = "SELECT id FROM curation_assignment WHERE id = ANY(%s::bigint[]) ORDER BY id FOR NO KEY UPDATE"
END = f"""
WITH ended AS MATERIALIZED ({LOCK_ASSIGNMENTS})
UPDATE curation_assignment a SET state = %s FROM ended WHERE a.id = ended.id
"""


class TooManyJudgments(ValueError):
    """More rows in one batch than are taken."""


class Result(NamedTuple):
    """What became of one row: stored, duplicate, or rejected with a sentence. `id` is as the client sent it; `stands` says of a
    rejected one that something else stands which its rater said of the item, so that the item is done nevertheless."""

    id: str | None
    status: str
    reason: str = ""
    stands: bool = False


def record_judgments(rater: User, rows: Sequence[object]) -> list[Result]:
    """Take in a batch of at most 10,000 rows (design: HTTP contract), 200 a transaction, and return one result for each, in their
    order. Raises TooManyJudgments for more.

    A skip or a report takes back no answer but the one that it names in `supersedes`.

    A row whose id is known with the same content is a duplicate. A judgment that comes after its lease ran out, or after
    its campaign was paused or closed, is stored all the same: it is somebody's work. It is marked late when the lease had
    run out or the item had enough. A second answer to an assignment supersedes the latest row of its chain.

    What was here before the campaign was closed, or before the rater was taken out of it, is changed no more by what comes after
    that, whenever it says that it was decided: a client may say anything. What was in hand then is taken in, and may be changed.
    """
    if len(rows) > MAX_ROWS:
        raise TooManyJudgments(f"At most {MAX_ROWS:,} judgments are taken at once; this was {len(rows):,}.")
    starts = range(0, len(rows), ROWS_AT_ONCE)
    return [result for start in starts for result in _record(rater, rows[start : start + ROWS_AT_ONCE])]


def _record(rater: User, rows: Sequence[object]) -> list[Result]:
    results: dict[int, Result] = {}
    submissions: dict[int, Submission] = {}
    for index, row in enumerate(rows):
        try:
            submissions[index] = read_submission(row)
        except Malformed as fault:
            results[index] = Result(echo_id(row), REJECTED, fault.args[0])
    if submissions:
        echoes = {index: echo_id(rows[index]) for index in submissions}
        for last in range(len(submissions), -1, -1):
            try:
                with transaction.atomic():
                    taken, measured = _take_all(rater, submissions, echoes)
                break
            except _IdTaken as clash:
                # All of it once more: the id is known then, so that each round is about one row less.
                if not last:
                    raise clash.error from clash
        results |= taken
        for campaign in measured:
            review(campaign, rater)
    return [results[index] for index in range(len(rows))]


def _take_all(
    rater: User, submissions: dict[int, Submission], echoes: dict[int, str | None]
) -> tuple[dict[int, Result], list[Campaign]]:
    """The results, and the campaigns of which gold items were judged."""
    desk = _open_desk(rater, list(submissions.values()))
    with tallies.kept(desk.locked):
        results = {index: _take(desk, each, echoes[index]) for index, each in submissions.items()}
        for number, judgment in enumerate(desk.stored):
            # Those of one batch come in at one moment, and stay in their order.
            judgment.received_at = desk.now + timedelta(microseconds=number)
        try:
            _store(desk.stored)
        except IntegrityError as error:
            raise _IdTaken(error) from error
        _settle(desk)
    gold = [row.item for row in desk.touched.values() if row.item.is_gold]
    return results, list({item.campaign_id: item.campaign for item in gold}.values())


class _IdTaken(Exception):
    """Another request stored one of these very ids, for an assignment that our locks do not cover."""

    def __init__(self, error: IntegrityError) -> None:
        super().__init__(str(error))
        self.error = error


def _store(judgments: Sequence[Judgment]) -> None:
    if judgments:
        rows = [{name: getattr(each, name) for name in JUDGMENT.names} for each in judgments]
        execute_prepared(STORE, [json.dumps(rows, default=str)])


@dataclass
class _Questions:
    """The questions of the campaigns of a batch, in every revision by which its judgments were made."""

    by_revision: dict[int, list[Question]]  # By the revision's id.
    named: dict[tuple[int, int], int]  # (campaign, number) -> id, of those that are named.
    now: dict[int, list[Question]]  # By campaign; of those that have no revision.


@dataclass
class _Desk:
    """What one batch needs, read after its items were locked, and what it has changed so far."""

    rater: User
    now: datetime  # By the database, once the items were locked.
    locked: Collection[int]  # Those of the assignments, and what is counted together with one of them.
    assignments: dict[int, Assignment]
    known: dict[uuid.UUID, Judgment]
    latest: dict[int, Judgment]  # Assignment id -> the end of its chain.
    ended: dict[int, str]  # Assignment id -> why what was said of it is changed no more.
    questions: _Questions
    revisions: dict[tuple[int, int], int]  # (campaign, number) -> id, of those that are named.
    touched: dict[int, Assignment] = field(default_factory=dict)
    stored: list[Judgment] = field(default_factory=list)


def _open_desk(rater: User, submissions: Sequence[Submission]) -> _Desk:
    wanted = [sorted({submission.assignment for submission in submissions}), rater.pk]
    # The items are the lock, always taken in the same order; everything else is read under it.
    items = {item.pk: item for item in map(ITEM.read, fetch_prepared(LOCK_ITEMS, wanted))}
    # One for the items of a campaign, and not one for each.
    rows = fetch_prepared(CAMPAIGNS, [rater.pk, list({item.campaign_id for item in items.values()})])
    campaigns = {campaign.pk: campaign for campaign in map(CAMPAIGN.read, rows)}
    removed = {campaign: row[-1] for campaign, row in zip(campaigns, rows, strict=True)}
    for item in items.values():
        item.campaign = campaigns[item.campaign_id]
        item.wanted = item.places(item.campaign)
    if any(submission.details for submission in submissions):
        prefetch_related_objects(list(items.values()), "prompt")
    assignments: dict[int, Any] = {}
    for row in fetch_prepared(MINE, wanted):
        assignment: Any = ASSIGNMENT.read(row)
        assignment.in_time, assignment.now = row[len(ASSIGNMENT) :]
        assignments[assignment.pk] = assignment
    for row in assignments.values():
        row.item = items[row.item_id]
    known, latest = _read_chains(assignments, submissions)
    return _Desk(
        rater=rater,
        now=max((row.now for row in assignments.values()), default=timezone.now()),
        locked=items.keys(),
        assignments=assignments,
        known=known,
        latest=latest,
        ended=_ended(assignments.values(), latest, removed),
        questions=_read_questions(set(campaigns), assignments.values(), submissions),
        revisions=_named_revisions(set(campaigns), submissions),
    )


def _read_chains(
    assignments: Collection[int], submissions: Sequence[Submission]
) -> tuple[dict[uuid.UUID, Judgment], dict[int, Judgment]]:
    """All judgments of these assignments and all that have one of the ids that were sent, by their ids; and the end of each
    assignment's chain."""
    rows = fetch_prepared(KNOWN, [[submission.id for submission in submissions], list(assignments)])
    known = {row.pk: row for row in map(JUDGMENT.read, rows)}
    superseded = {row.supersedes_id for row in known.values()}
    ends = (row for row in known.values() if row.assignment_id in assignments and row.pk not in superseded)
    return known, {row.assignment_id: row for row in ends}


def _ended(
    assignments: Iterable[Assignment], latest: Mapping[int, Judgment], removed: Mapping[int, datetime | None]
) -> dict[int, str]:
    """Assignment id -> why it is too late to change what was said of it, of those of which it is; `removed`: campaign id -> when the
    rater was taken out of it."""
    found = {}
    for row in assignments:
        campaign, end = row.item.campaign, latest.get(row.pk)
        if end is None or row.state == AssignmentState.LEASED:
            continue
        closed = campaign.closed_at if campaign.state == CampaignState.CLOSED else None
        left = removed[campaign.pk]
        if closed is not None and end.received_at < closed:
            found[row.pk] = "The campaign was closed after you judged this item, so that stands and is changed no more."
        elif left is not None and end.received_at < left:
            found[row.pk] = (
                "You are not one of the raters of this campaign any more, so what you said of this item before stands."
            )
    return found


def _read_questions(
    campaigns: set[int], assignments: Iterable[Assignment], submissions: Sequence[Submission]
) -> _Questions:
    numbers = {each.question_revision for each in submissions if each.question_revision is not None}
    leased = {row.question_revision_id for row in assignments}
    if None in leased:
        numbers.add(1)  # There was no other when leases did not say it yet.
    found = _Questions({}, {}, {})
    for pk, campaign, number, questions in fetch_prepared(
        REVISIONS, [list(leased - {None}), list(campaigns), list(numbers)]
    ):
        found.by_revision[pk] = as_questions(questions)
        found.named[campaign, number] = pk
    without = campaigns - {campaign for campaign, _ in found.named}
    for question in Question.objects.filter(campaign__in=without) if without else ():
        found.now.setdefault(question.campaign_id, []).append(question)
    return found


def _named_revisions(campaigns: set[int], submissions: Sequence[Submission]) -> dict[tuple[int, int], int]:
    numbers = {each.guideline_revision for each in submissions if each.guideline_revision is not None}
    if not numbers:
        return {}
    named = GuidelineRevision.objects.filter(campaign__in=campaigns, number__in=numbers)
    return {(campaign, number): pk for campaign, number, pk in named.values_list("campaign", "number", "pk")}


def _take(desk: _Desk, submission: Submission, echo: str | None) -> Result:
    known = desk.known.get(submission.id)
    if known is not None:
        if _says_the_same(known, submission, desk.rater):
            return Result(echo, DUPLICATE)
        return Result(echo, REJECTED, "This id was used for another judgment.")
    try:
        judgment = _draft(desk, submission)
    except Malformed as fault:
        own = desk.assignments.get(submission.assignment)
        latest = desk.latest.get(own.pk) if own else None
        return Result(echo, REJECTED, fault.args[0], latest is not None and latest.action != JudgmentAction.UNDO)
    _note(desk, judgment)
    return Result(echo, STORED)


def _says_the_same(known: Judgment, submission: Submission, rater: User) -> bool:
    return bool(
        known.rater_id == rater.pk
        and known.assignment_id == submission.assignment
        and known.action == submission.action
        and known.answers == submission.answers
        and known.details == submission.details
        and known.reason == submission.reason
    )


def _draft(desk: _Desk, submission: Submission) -> Judgment:
    """The row to store. Raises Malformed with the reason why there is none."""
    assignment = desk.assignments.get(submission.assignment)
    if assignment is None:
        raise Malformed("There is no such assignment of yours.")
    if assignment.pk in desk.ended:
        raise Malformed(desk.ended[assignment.pk])
    latest = desk.latest.get(assignment.pk)
    order = slots_shown(submission.order, assignment)
    if assignment.item.campaign.compares and not are_whole(order):
        raise Malformed("Each set stays whole: one on the left, and the other on the right.")
    asked = _questions_shown(desk, submission, assignment)
    if submission.action == JudgmentAction.ANSWER:
        questions = _questions_of(desk, asked, assignment.item.campaign_id)
        check_answers(submission.answers, questions, len(order))
        words = prompt_words(assignment.item.prompt) if submission.details else []
        check_details(submission.details, submission.answers, questions, words=words)
    revision = _revision_shown(desk, submission, assignment)
    if submission.action == JudgmentAction.UNDO:
        _check_undo(submission, latest)
    elif submission.supersedes is not None:
        _check_supersedes(desk, submission, assignment, latest)
    if submission.action in (JudgmentAction.SKIP, JudgmentAction.FLAG):
        _check_is_not_stale(submission, latest)
    return Judgment(
        id=submission.id,
        assignment=assignment,
        item=assignment.item,
        rater=desk.rater,
        action=submission.action,
        answers=submission.answers,
        details=submission.details,
        reason=submission.reason,
        order=order,
        shown_at=submission.shown_at,
        decided_at=submission.decided_at,
        page=submission.page,
        place=submission.place,
        page_size=submission.page_size,
        guideline_revision_id=revision,
        question_revision_id=asked,
        late=_is_late(submission, assignment, latest),
        supersedes=latest,
    )


def _revision_shown(desk: _Desk, submission: Submission, assignment: Assignment) -> int | None:
    """The id of the revision that the client says it showed; of one that says nothing, the newest at the time of the lease.
    Raises Malformed."""
    number = submission.guideline_revision
    if number is None:
        return assignment.guideline_revision_id
    found = desk.revisions.get((assignment.item.campaign_id, number))
    if found is None:
        raise Malformed(f"The guidelines of this campaign have no revision {number}.")
    return found


def _questions_shown(desk: _Desk, submission: Submission, assignment: Assignment) -> int | None:
    """As `_revision_shown`, of the questions: a judgment is checked by how they read when it was made."""
    number = submission.question_revision
    if number is None and assignment.question_revision_id is not None:
        return assignment.question_revision_id
    found = desk.questions.named.get((assignment.item.campaign_id, number or 1))
    if found is None and number is not None:
        raise Malformed(f"The questions of this campaign have no revision {number}.")
    leased = assignment.question_revision_id
    if found is not None and leased is not None and found != leased:
        # A draft may have had others, to which nothing can be an answer.
        known = desk.questions.by_revision
        if not ask_the_same(known[found], known[leased]):
            raise Malformed(f"Revision {number} of the questions was never asked: the campaign opened with others.")
    return found


def _questions_of(desk: _Desk, revision: int | None, campaign: int) -> list[Question]:
    return desk.questions.now[campaign] if revision is None else desk.questions.by_revision[revision]


def _check_undo(submission: Submission, latest: Judgment | None) -> None:
    if submission.supersedes is None:
        raise Malformed("An undo names the judgment that it takes back, in supersedes.")
    if latest is None:
        raise Malformed("There is nothing to undo here.")
    if latest.pk != submission.supersedes:
        raise Malformed("That judgment is not the latest one of this assignment, so it cannot be undone.")
    if latest.action == JudgmentAction.UNDO:
        raise Malformed("That judgment was undone before.")


def _check_supersedes(desk: _Desk, submission: Submission, assignment: Assignment, latest: Judgment | None) -> None:
    """An answer may name any earlier row of its chain; what it supersedes is the latest."""
    if latest is not None and submission.supersedes == latest.pk:
        return
    assert submission.supersedes is not None
    earlier = desk.known.get(submission.supersedes)
    if earlier is not None and earlier.assignment_id == assignment.pk:
        return
    if not Judgment.objects.filter(pk=submission.supersedes, assignment=assignment, rater=desk.rater).exists():
        raise Malformed("The judgment that this one supersedes is not known.")


def _check_is_not_stale(submission: Submission, latest: Judgment | None) -> None:
    """Of two devices of one rater, the one that did not see the answer must not take it back by passing the item over."""
    if latest is not None and latest.action == JudgmentAction.ANSWER and submission.supersedes != latest.pk:
        done = "skipped" if submission.action == JudgmentAction.SKIP else "reported"
        raise Malformed(
            f"You have answered this item on another device since, so it was not {done}. Your answer stands."
        )


def _is_late(submission: Submission, assignment: Assignment, latest: Judgment | None) -> bool:
    if submission.action != JudgmentAction.ANSWER:
        return False
    if latest is not None and latest.action == JudgmentAction.ANSWER:
        return latest.late  # A correction takes the place of what it corrects.
    leased = assignment.state == AssignmentState.LEASED and assignment.in_time  # type: ignore[attr-defined]
    return bool(not leased or assignment.item.judged >= assignment.item.wanted)


def _note(desk: _Desk, judgment: Judgment) -> None:
    """Let later rows of the batch see this one as the database will."""
    assignment = desk.assignments[judgment.assignment_id]
    before = desk.latest.get(assignment.pk)
    counted = before is not None and before.action == JudgmentAction.ANSWER
    if not assignment.excluded:
        assignment.item.judged += (judgment.action == JudgmentAction.ANSWER) - counted
    assignment.state = STATE_AFTER[JudgmentAction(judgment.action)]
    if assignment.state == AssignmentState.LEASED:
        # The undo gives the lease anew, so that an answer that came along with it is in time.
        assignment.in_time = _has_place(assignment)  # type: ignore[attr-defined]
    desk.stored.append(judgment)
    desk.latest[assignment.pk] = judgment
    desk.known[judgment.pk] = judgment
    desk.touched[assignment.pk] = assignment


def _settle(desk: _Desk) -> None:
    """Bring assignments, items and verdicts into line with the chains."""
    touched = list(desk.touched.values())
    if len(touched) > 1 and {row.state for row in touched} != {AssignmentState.JUDGED}:
        # They end in several statements.
        fetch_prepared(LOCK_ASSIGNMENTS, [list(desk.touched)])
    for state in (AssignmentState.JUDGED, AssignmentState.RELEASED):
        pks = [row.pk for row in touched if row.state == state]
        if pks:
            execute_prepared(END, [pks, str(state)])
    by_campaign: dict[int, dict[int, Item]] = {}
    for row in touched:
        if row.item.is_gold:
            continue  # It measures the rater, and has no verdict.
        by_campaign.setdefault(row.item.campaign_id, {})[row.item_id] = row.item
    for items in by_campaign.values():
        rows = list(items.values())
        refresh_verdicts(rows[0].campaign, rows, read_under_locks=True)
    for row in touched:
        if row.state == AssignmentState.LEASED:
            _lease_again(row)
            rerank(row.item.campaign, [row.item_id])


def _lease_again(assignment: Assignment) -> None:
    """After an undo the item is the rater's again; with a live lease only where no one else took the place meanwhile."""
    seconds = assignment.item.campaign.lease_seconds if _has_place(assignment) else 0
    Assignment.objects.filter(pk=assignment.pk).update(
        state=AssignmentState.LEASED, leased_at=Now(), expires_at=Now() + timedelta(seconds=seconds)
    )


def _has_place(assignment: Assignment) -> bool:
    """Whether the item still wants this rater's judgment beside those it has and those that others are about to give."""
    item = assignment.item
    others = Assignment.objects.live().that_count().filter(item=item).exclude(pk=assignment.pk).count()
    return bool(item.judged + others < item.wanted)
