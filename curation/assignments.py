"""Assignments: which items a rater gets next. Many raters ask at once; no item goes out more often than it is wanted."""

import json
import random
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import Count, Exists, F, OuterRef, Q
from django.db.models.functions import Greatest, Now
from django.utils.crypto import salted_hmac

from accounts.models import User
from accounts.rows import execute_prepared
from curation import tallies
from curation.claims import claim, fair_share
from curation.example_rounds import ASKED, is_asked, with_asked
from curation.gold import active_gold, unseen_gold
from curation.grids import has_several
from curation.leases import as_it_is, in_hand, lock_place, with_samples
from curation.mixing import count_gold, gold_among, mix
from curation.models import (
    Assignment,
    AssignmentState,
    Campaign,
    CampaignKind,
    CampaignRater,
    CampaignState,
    Item,
    ItemOrder,
    ItemSample,
    JudgmentAction,
    RaterState,
    TallyKind,
)
from curation.order import rerank
from curation.probes import make_probes, swapped_sides, to_ask_again
from curation.standing import round_left, settle, why_refused

# Two pages of the largest grid, and what is on its way.
MAX_COUNT = 100
# What a rater's lease is still good for.
WANTED = Q(item__is_open=True) | Q(item__is_gold=True)
# One picture, which has one order.
SINGLE = (CampaignKind.ALIGNMENT, CampaignKind.STYLE)
# In the order in which the items are handed out, which is by number. What was judged meanwhile is not: nobody locks gold items.
ASSIGN = """
INSERT INTO curation_assignment (item_id, rater_id, state, "order", leased_at, expires_at, excluded, guideline_revision_id,
                                 question_revision_id)
SELECT item, %(rater)s, 'leased', slots::jsonb, %(now)s, %(until)s, %(excluded)s, %(guidelines)s, %(questions)s
FROM unnest(%(items)s::bigint[], %(orders)s::text[]) WITH ORDINALITY handed_out (item, slots, place) ORDER BY place
ON CONFLICT (item_id, rater_id) DO UPDATE SET
    state = excluded.state, leased_at = excluded.leased_at, expires_at = excluded.expires_at,
    guideline_revision_id = excluded.guideline_revision_id, question_revision_id = excluded.question_revision_id
WHERE curation_assignment.state = 'leased'
RETURNING id
"""
# Locked by number, as where judgments come in: a rater's own submission would otherwise wait for this and this for it.
RENEW = """
WITH held AS MATERIALIZED (SELECT id FROM curation_assignment WHERE id = ANY(%s::bigint[]) ORDER BY id FOR NO KEY UPDATE)
UPDATE curation_assignment a SET expires_at = statement_timestamp() + make_interval(secs => %s)
FROM held WHERE a.id = held.id AND a.state = 'leased' AND a.expires_at > statement_timestamp()
"""


class LeaseRefused(Exception):
    """This person cannot lease here now; the message is for a person."""


class ExamplesFirst(LeaseRefused):
    """They can once they have passed the examples that the guidelines ask first (curation.example_rounds)."""


class NotARater(LeaseRefused):
    """To them there is no such campaign: they are none of its raters, or it was never opened."""


class Lease(NamedTuple):
    """What a rater holds, with the campaign and their place in it as they were when it was handed out. `campaign` has the newest
    revision of the guidelines as `newest_guidelines` (pk, number, asks_up_to) and that of the questions as `newest_questions` (pk,
    number, questions), each None where there is none."""

    assignments: list[Assignment]
    campaign: Any
    place: CampaignRater


def lease_items(campaign: Campaign, rater: User, count: int, *, together: bool = False) -> list[Assignment]:
    """The assignments of `lease`."""
    return lease(campaign.slug, rater, count, together=together).assignments


def lease(slug: str, rater: User, count: int, *, together: bool = False) -> Lease:
    """Up to `count` (1 to 100) assignments for this rater: those still held, renewed, and then new ones, in the campaign's order
    or, `together`, prompt by prompt with all free items of each, with gold items among them.

    Where there are more raters than an item has places, somebody who asks for more than ten holds at most half of what is left.
    A reload gives the same items again, and so does a second tab. An empty list means that nothing is left for
    this rater. The assignments come with `.item.prompt`, `.shown` (samples from left to right) and `.chain` (judgments
    of before an undo, the newest first). Raises LeaseRefused unless the campaign is open and the person one of its raters.
    """
    count = min(max(count, 1), MAX_COUNT)
    with transaction.atomic():
        # One rater's requests queue up behind this row, so that two tabs are handed the same items.
        # An exclusion takes it as well, and so finds every assignment that was made before it.
        place = lock_place(slug, rater)
        if place is None or not (rater.is_superuser or rater.has_role("rater")):
            raise NotARater("You are not one of the raters of this campaign.")
        place.rater = rater
        now = as_it_is(place.campaign_id)
        if now.state != CampaignState.OPEN:
            refused = NotARater if now.state == CampaignState.DRAFT else LeaseRefused
            raise refused(f"This campaign is {CampaignState(now.state).label.lower()}: nothing is handed out.")
        if place.state == RaterState.QUALIFYING:
            # A round may have ended without its end having been seen: another answer was taken in at the same time.
            settle(now, place)
        refusal = why_refused(place)
        asks = is_asked(place, now.newest_guidelines and now.newest_guidelines["asks_up_to"])
        pks = [] if refusal else _lease(now, place, rater, count, together, only_held=asks)
    # What was settled stays, whatever it led to.
    if refusal:
        raise LeaseRefused(refusal)
    if asks and not pks:
        raise ExamplesFirst(ASKED)
    return Lease(with_samples(pks), now, place)


def _lease(
    campaign: Any, place: CampaignRater, rater: User, count: int, together: bool, *, only_held: bool
) -> list[int]:
    is_round = place.state == RaterState.QUALIFYING
    if is_round:
        count = min(count, round_left(campaign, place))
    held = in_hand(campaign, rater, count, only_gold=is_round)
    wanted = 0 if only_held else count - len(held)
    if wanted > 0 and not is_round:
        wanted = fair_share(campaign, rater, count, held=len(held)) - len(held)
    new: list[int] = []
    if wanted > 0:
        new = (
            _hand_out_round(campaign, place, wanted)
            if is_round
            else _hand_out(campaign, place, rater, wanted, together)
        )
    if is_round and not held and not new and not only_held:
        raise LeaseRefused(
            "Your qualification round needs more items than there are, so a curator has to let you in. What you judged is kept."
        )
    # Items are locked before assignments, here as where judgments come in, so that neither waits for the other.
    if held:
        execute_prepared(RENEW, [held, campaign.lease_seconds])
    return [*held, *new]


def left_for(campaign: Campaign, rater: User) -> int:
    """How many items this rater could still judge now, those held included, and the gold items that would come among them.

    Of the campaign's own items these are the open ones, less those that the rater is through with, less those whose last places
    others hold just now.
    """
    places = CampaignRater.objects.filter(campaign=campaign, rater=rater, removed_at=None).select_related("rater")
    place = with_asked(places).first()
    own = Assignment.objects.live().filter(WANTED, rater=rater, item__campaign=campaign)
    gold: int = own.filter(item__is_gold=True).count()
    if place is None or why_refused(place):
        return 0
    if is_asked(place, place.asks_up_to):
        return own.count()
    if place.state == RaterState.QUALIFYING:
        return min(round_left(campaign, place), gold + len(_gold_to_come(campaign, rater)))
    open_items = tallies.total([campaign.pk], TallyKind.OPEN)
    through_with = tallies.total([campaign.pk], TallyKind.WAITING, rater_id=rater.pk)
    ordinary = open_items - through_with - _taken(campaign, rater)
    return ordinary + gold + _gold_ahead(campaign, place, rater, ordinary - (own.count() - gold))


def holds_any(campaign: Campaign, rater: User) -> bool:
    """Whether this rater has items in hand."""
    return Assignment.objects.live().filter(WANTED, rater=rater, item__campaign=campaign).exists()


def done_by(campaign: Campaign, rater: User) -> int:
    """How many items this rater is through with: judged, skipped or flagged."""
    ended = tallies.read([campaign.pk], TallyKind.ENDED, rater_id=rater.pk)
    return sum(n for of, (n, _) in ended.items() if of.key != JudgmentAction.UNDO)


def _taken(campaign: Campaign, rater: User) -> int:
    """How many open items others hold all missing places of, this rater having none there. Live leases are few: each rater
    has some dozens."""
    mine = Assignment.objects.filter(item=OuterRef("item"), rater=rater).exclude(
        state=AssignmentState.LEASED, expires_at__lte=Now()
    )
    held = (
        Assignment.objects.live()
        .that_count()
        .filter(item__campaign=campaign, item__is_open=True)
        .exclude(rater=rater)
        .filter(~Exists(mine))
        .order_by()
        .values("item", "item__judged")
        .annotate(others=Count("pk"))
    )
    return held.filter(others__gte=Greatest(campaign.overlap - F("item__judged"), 1)).count()


def _gold_ahead(campaign: Campaign, place: CampaignRater, rater: User, free: int) -> int:
    """How many gold items would come up beside so many free ones. Were they left out, the count would not move when one is
    judged, and so say which they are."""
    if not active_gold(campaign).exists() and not campaign.probe_percent:
        return 0
    lapsed = _lapsed(campaign, rater)
    measures = _measures_among(campaign, lapsed)
    again = set(campaign.items.free_for(rater, campaign.overlap).filter(pk__in=lapsed).values_list("pk", flat=True))
    gold = len(_in_company(lapsed, measures, again)) - len(again)
    return gold + count_gold(place, campaign.gold_percent, free - len(again), unseen_gold(campaign, rater).count())


def _lapsed(campaign: Campaign, rater: User) -> list[int]:
    """Items whose lease ran out before this rater judged them, in the order in which they were handed out."""
    leased = Assignment.objects.filter(rater=rater, state=AssignmentState.LEASED, expires_at__lte=Now())
    return list(leased.filter(item__campaign=campaign).order_by("pk").values_list("item_id", flat=True))


def _measures_among(campaign: Campaign, lapsed: list[int]) -> set[int]:
    """Those of these items that are gold and count, or ask again what raters have not been told the answer of since."""
    if not lapsed:
        return set()
    probes = Item.objects.filter(pk__in=lapsed, probe__of__is_gold=False)
    gold = active_gold(campaign).filter(pk__in=lapsed)
    return {*gold.values_list("pk", flat=True), *probes.values_list("pk", flat=True)}


def _in_company(lapsed: list[int], measures: Collection[int], again: Collection[int]) -> list[int]:
    """What comes back of the lapsed items: the ordinary ones that are to be had `again`, and a gold item or probe only with one
    of the ordinary two that were handed out next to it. That it came back where others got those would tell what it is."""
    ordinary = [item for item in lapsed if item not in measures]
    coming, before = [], 0
    for item in lapsed:
        if item not in measures:
            before += 1
        beside = ordinary[max(before - 1, 0) : before + 1]
        if item in again or (item in measures and (not beside or any(each in again for each in beside))):
            coming.append(item)
    return coming


def _hand_out(campaign: Any, place: CampaignRater, rater: User, wanted: int, together: bool) -> list[int]:
    """Ids of new assignments, at most `wanted`, with gold items and probes at their places among them."""
    if not campaign.has_gold and not campaign.probe_percent:
        return _assign(campaign, place, claim(campaign, rater, wanted, together=together))
    # What the rater had before comes first, gold and others alike: one that stayed away would be known by that. It is theirs
    # before new items are looked for, which would find it once more.
    again = _assign(campaign, place, _take_again(campaign, rater, wanted))
    wanted -= len(again)
    at = gold_among(place, campaign.gold_percent, wanted)
    unseen = list(unseen_gold(campaign, rater)) if at else []
    gold, beside = random.sample(unseen, min(len(at), len(unseen))), None
    if gold and together and has_several(campaign):
        beside = claim(campaign, rater, wanted, together=True)
        gold = _with_company(unseen, beside, len(at), wanted)
    gold_at = dict(zip(at, gold, strict=False))
    probe_at = [n for n in gold_among(place, campaign.probe_percent, wanted, "probes") if n not in gold_at]
    known = to_ask_again(campaign, rater, len(probe_at)) if probe_at else []
    free = wanted - len(gold) - len(known)
    if known:
        # Whether there is anything else to do, where what is asked again takes all places.
        free = max(free, 1)
    if beside is not None:
        ordinary = beside[:free]
    else:
        ordinary = claim(campaign, rater, free, together=together) if free else []
    # Nothing is asked again of who has nothing else to do.
    among = gold_at | (dict(zip(probe_at, known, strict=False)) if ordinary else {})
    mixed = mix(ordinary, [among[n] for n in sorted(among)], sorted(among))[:wanted]
    probes = make_probes(campaign, rater, [item for item in mixed if item in known])
    mixed = [probes.get(item.pk, item) for item in mixed]
    CampaignRater.objects.filter(pk=place.pk).update(handed_out=F("handed_out") + len(mixed))
    return [*again, *_assign(campaign, place, mixed)]


def _with_company(unseen: Sequence[Item], beside: list[Item], most: int, wanted: int) -> list[Item]:
    """Gold items, at most so many, each with ordinary ones of its prompt among those that come `beside` it: the screen shows what
    is of one prompt together, and one alone among groups would be known by that. The ordinary ones are put in the order of their
    prompts, so that it is whole groups that come, and the last that make room."""
    first: dict[int, int] = {}
    for number, item in enumerate(beside):
        first.setdefault(item.prompt_id, number)
    beside.sort(key=lambda item: first[item.prompt_id])
    company = {item.prompt_id for item in beside[: wanted - most]}
    fitting = [item for item in unseen if item.prompt_id in company]
    return random.sample(fitting, min(most, len(fitting)))


def _hand_out_round(campaign: Campaign, place: CampaignRater, wanted: int) -> list[int]:
    """Ids of new assignments, all of gold items."""
    coming = _gold_to_come(campaign, place.rater)[:wanted]
    # What is taken up again is written in the order in which it is handed out, and the rater's own submission locks by number.
    before = Assignment.objects.filter(rater=place.rater_id, item__in=[item.pk for item in coming])
    list(before.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True))
    return _assign(campaign, place, coming)


def _gold_to_come(campaign: Campaign, rater: User) -> list[Item]:
    """The gold items that this rater did not judge and does not hold: those had before first, the others in no order."""
    unseen = list(unseen_gold(campaign, rater))
    random.shuffle(unseen)
    return [*active_gold(campaign).filter(pk__in=_lapsed(campaign, rater)), *unseen]


def _take_again(campaign: Campaign, rater: User, wanted: int) -> list[Item]:
    lapsed = _lapsed(campaign, rater)
    if not lapsed:
        return []
    measures = _measures_among(campaign, lapsed)
    claimed = {item.pk: item for item in claim(campaign, rater, wanted, among=lapsed)}
    coming = _in_company(lapsed, measures, claimed)[:wanted]
    # What the rater's own submission is about to end is not waited for, by whoever holds other items.
    locks = Item.objects.select_for_update(no_key=True, skip_locked=True)
    found = claimed | {item.pk: item for item in locks.filter(pk__in=measures.intersection(coming)).order_by("pk")}
    return [found[pk] for pk in coming if pk in found]


def _assign(campaign: Any, place: CampaignRater, items: list[Item]) -> list[int]:
    if not items:
        return []
    rater = place.rater
    # Leases of this rater that ran out are taken up again, with the sides that were shown before.
    again: set[int] = set()
    if campaign.kind not in SINGLE:
        mine = Assignment.objects.filter(item__in=[item.pk for item in items], rater=rater)
        again = set(mine.values_list("item_id", flat=True))
    fresh = [item for item in items if item.pk not in again]
    orders = {item.pk: order for item, order in zip(fresh, _orders(campaign, rater, fresh), strict=True)}
    values = {
        "items": [item.pk for item in items],
        "orders": [json.dumps(orders.get(item.pk, [])) for item in items],
        "rater": rater.pk,
        "now": campaign.now,
        "until": campaign.now + timedelta(seconds=campaign.lease_seconds),
        "excluded": place.excluded,
        "guidelines": campaign.newest_guidelines and campaign.newest_guidelines["pk"],
        "questions": campaign.newest_questions and campaign.newest_questions["pk"],
    }
    with connection.cursor() as cursor:
        cursor.execute(ASSIGN, values)
        pks = [pk for (pk,) in cursor.fetchall()]
    if campaign.item_order == ItemOrder.LEAST:
        # What is on its way counts, so that raters who are at work at once spread over the items.
        rerank(campaign, [item.pk for item in items if not item.is_gold])
    return pks


def _orders(campaign: Campaign, rater: User, items: list[Item]) -> list[list[int]]:
    """The slots from left to right for each item. In a comparison each rater sees the baseline left as often as right:
    of two successive assignments, which one is swapped is drawn, and the other is not."""
    if campaign.kind in SINGLE:
        return [[0] for _ in items]
    if campaign.compares:
        return _all_sides(campaign, rater, items)
    slots = _slots_of(items)
    return [random.sample(range(slots[item.pk]), slots[item.pk]) for item in items]


def _slots_of(items: list[Item]) -> dict[int, int]:
    """Item id -> how many samples it shows."""
    return dict(ItemSample.objects.filter(item__in=items).order_by().values_list("item").annotate(slots=Count("pk")))


def _all_sides(campaign: Campaign, rater: User, items: list[Item]) -> list[list[int]]:
    """Gold items have a sequence of their own, so that the others are balanced without them; probes are the other way round."""
    slots = _slots_of(items)
    swapped = swapped_sides(rater, items) if any(item.is_gold for item in items) else {}
    before = (
        Assignment.objects.filter(rater=rater, item__campaign=campaign, item__probe=None)
        .order_by()
        .values_list("item__is_gold")
    )
    numbers = Counter(dict(before.annotate(count=Count("pk"))))
    orders = []
    for item in items:
        if item.pk in swapped:
            orders.append(swapped[item.pk])
            continue
        sides = _sides(campaign, rater, numbers[item.is_gold], is_gold=item.is_gold)
        each = slots[item.pk] // 2
        orders.append([slot for side in sides for slot in range(side * each, (side + 1) * each)])
        numbers[item.is_gold] += 1
    return orders


def _sides(campaign: Campaign, rater: User, number: int, *, is_gold: bool = False) -> list[int]:
    # Keyed: whoever knows this code and the numbers could otherwise work out which side is the candidate.
    sequence = f"{campaign.pk}:{rater.pk}:{'gold:' if is_gold else ''}{number // 2}"
    seed = salted_hmac("curation.sides", sequence).digest()[0]
    return [1, 0] if (seed + number) % 2 else [0, 1]
