"""Adjudications: what a curator decides where the judges of an item contradict each other, or say that it is broken.

A decision answers the campaign's own questions, and stands above the judgments: the verdict is what it says, whatever comes
in afterwards, and the item is handed out no more. The judgments stay as they are, and so does what counts them, such as the
win rate of a comparison.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils.crypto import salted_hmac

from accounts.models import User
from curation import tallies
from curation.campaigns import is_blind_for
from curation.malformed import Malformed
from curation.models import (
    Adjudication,
    AdjudicationAction,
    Campaign,
    Item,
    ItemSample,
    Judgment,
    JudgmentAction,
    TallyKind,
    Verdict,
)
from curation.sets import are_whole
from curation.submissions import check_answers
from curation.verdicts import decide_alone, refresh_verdicts

MAX_REASON = 300


class AdjudicationRefused(ValueError):
    """A decision that is not taken; the message is for a person."""


@dataclass(frozen=True)
class Waiting:
    """How many items of a campaign wait for a curator: those whose judges contradict each other, and those reported broken."""

    split: int = 0
    flagged: int = 0

    @property
    def total(self) -> int:
        return self.split + self.flagged


def split_items(campaign: Campaign) -> QuerySet[Item]:
    """Items that have their judgments, which contradict each other, and that nobody decided, in the campaign's order."""
    contested = Verdict.objects.filter(item=OuterRef("pk"), contested=True)
    return campaign.items.filter(Exists(contested), adjudicated="").order_by("position")


def flagged_items(campaign: Campaign) -> QuerySet[Item]:
    """Items that some rater reported as broken and that nobody decided, in the campaign's order."""
    reported = Exists(standing_flags().filter(item=OuterRef("pk")))
    return campaign.items.to_decide().filter(reported, adjudicated="").order_by("position")


def standing_flags() -> QuerySet[Judgment]:
    """Reports that their raters have not taken back."""
    return Judgment.objects.filter(action=JudgmentAction.FLAG, superseded_by__isnull=True).order_by()


def explained_skips(campaign: Campaign) -> QuerySet[Judgment]:
    """Skips of which raters said why, that they have not taken back, the newest first."""
    said = Judgment.objects.filter(action=JudgmentAction.SKIP, superseded_by__isnull=True).exclude(reason="")
    return said.filter(item__campaign=campaign).order_by("-received_at")


def waiting_in(campaigns: Iterable[Campaign]) -> dict[int, Waiting]:
    """Campaign id -> what waits there, for all of them at once. An item that is both split and reported counts as split."""
    found: defaultdict[int, dict[str, int]] = defaultdict(dict)
    pks = [campaign.pk for campaign in campaigns]
    for of, (n, _) in tallies.read(pks, TallyKind.SPLIT, TallyKind.FLAGGED).items():
        found[of.campaign_id][of.what] = n
    return {pk: Waiting(**found[pk]) for pk in pks}


def order_for(item: Item, by: User) -> list[int]:
    """The slots from left to right as this person sees them; in a comparison the sides are mixed, and stay when they look again."""
    slots = list(ItemSample.objects.filter(item=item).order_by("slot").values_list("slot", flat=True))
    if item.campaign.compares and salted_hmac("curation.bench", f"{item.pk}:{by.pk}").digest()[0] % 2:
        slots.reverse()
    return slots


def latest_of(item: Item) -> Adjudication | None:
    """The end of the item's chain of decisions: one that stands, or an undo."""
    return item.adjudications.filter(superseded_by__isnull=True).select_related("by").first()


def adjudicate(
    item: Item,
    *,
    by: User,
    answers: Mapping[str, str],
    order: Sequence[int] | None = None,
    reason: str = "",
    seen: uuid.UUID | None = None,
) -> Adjudication:
    """Decide about the item by answers to its campaign's questions. Raises AdjudicationRefused.

    `order` says which slot stood where, from left to right; None is by slots. `seen` is the end of the item's chain as the
    person saw it: where another decision came in between, nothing is decided.
    """
    with transaction.atomic():
        locked = _locked(item, by)
        questions = list(locked.campaign.questions.all())
        slots = sorted(ItemSample.objects.filter(item=locked).values_list("slot", flat=True))
        try:
            check_answers(dict(answers), questions, len(slots))
        except Malformed as fault:
            raise AdjudicationRefused(fault.args[0]) from fault
        shown = slots if order is None else list(order)
        if sorted(shown) != slots:
            raise AdjudicationRefused("The order must name each picture once.")
        if locked.campaign.compares and not are_whole(shown):
            raise AdjudicationRefused("Each set stays whole: one on the left, and the other on the right.")
        row = _append(
            locked, by, seen, action=AdjudicationAction.DECIDE, answers=dict(answers), order=shown, reason=reason
        )
        locked.adjudicated = decide_alone(locked.campaign.kind, questions, answers, shown)
        _settle(locked)
    return row


def undo_adjudication(row: Adjudication, *, by: User) -> Adjudication:
    """Take a decision back, so that the rule's verdict stands again. Raises AdjudicationRefused where it stands no more."""
    with transaction.atomic():
        locked = _locked(row.item, by)
        undo = _append(locked, by, row.pk, action=AdjudicationAction.UNDO)
        locked.adjudicated = ""
        _settle(locked)
    return undo


def _locked(item: Item, by: User) -> Item:
    locked = Item.objects.select_for_update(of=("self",), no_key=True).select_related("campaign").get(pk=item.pk)
    if is_blind_for(locked.campaign, by):
        raise AdjudicationRefused("You judge in this comparison, so you cannot decide in it before it is closed.")
    if locked.is_gold:
        raise AdjudicationRefused(
            "This is a gold item or an example of the guidelines: its answer is known, and it gets no verdict."
        )
    return locked


def _append(
    item: Item,
    by: User,
    seen: uuid.UUID | None,
    *,
    action: AdjudicationAction,
    answers: Mapping[str, str] | None = None,
    order: Sequence[int] = (),
    reason: str = "",
) -> Adjudication:
    latest = latest_of(item)
    if (latest.pk if latest else None) != seen or (
        action == AdjudicationAction.UNDO and latest is not None and latest.action == action
    ):
        who = f"{latest.by} decided" if latest else "Somebody decided"
        raise AdjudicationRefused(f"{who} about this item meanwhile. Look again.")
    return Adjudication.objects.create(
        item=item,
        by=by,
        action=action,
        answers=answers or {},
        order=list(order),
        reason=reason.strip()[:MAX_REASON],
        supersedes=latest,
    )


def _settle(item: Item) -> None:
    with tallies.kept([item.pk]):
        Item.objects.filter(pk=item.pk).update(adjudicated=item.adjudicated)
        refresh_verdicts(item.campaign, [item])
