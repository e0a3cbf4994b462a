"""The order in which a campaign's items are handed out: as set up, mixed, by a model's score, least judged first, or closest
votes first, and within that by turns between buckets where a campaign asks for it.

`Item.rank` is a level and a place, `level * STEP + place`, and open items go out by (rank, position), which an index serves: no
lease sorts what is open. The place is given when an order is chosen; the level is 0 in the first three orders, and in the others
follows what comes in. It decides who comes first and nothing else: a rank that is out of date costs no judgment. As set up,
without turns, items go out by position and nothing looks at ranks.
"""

import secrets
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import BinaryField, F, Func, OrderBy, OuterRef, QuerySet, Subquery, TextField, Value, Window
from django.db.models import Count as CountRows
from django.db.models.functions import Abs, Cast, Coalesce, Concat, Least, RowNumber

from accounts.models import User
from curation.models import (
    COMPARISONS,
    SCORE_ORDERS,
    Assignment,
    Campaign,
    CampaignEvent,
    CampaignKind,
    Item,
    ItemOrder,
    Question,
    Verdict,
)
from curation.rules import SIDES, accepting
from jobs.context import JobContext
from jobs.models import Job
from jobs.queue import enqueue

ORDER_KIND = "curation.put_in_order"
# Up to so many items are put in order while somebody waits for the page.
MOST_AT_ONCE = 5000
# So also while a campaign is made, which takes longer, since nothing of it is to be had out of order.
MOST_AT_FIRST = 200_000
CHUNK = 2000
# With 32 levels a rank fits 32 bits; a campaign has far fewer items than a level has places.
STEP = 2**26
LAST_LEVEL = 31
# Of closest votes: contradicted items by the lead of the strongest answer, then those not judged, then those of one mind by the
# number of their judgments.
CONTRADICTED, NOT_JUDGED = 20, 20
# How far a score may be from 0: the distance of two such scores is still a number.
FURTHEST = 1e300

Counts = Mapping[str, Mapping[str, float]]


class Order(NamedTuple):
    """What comes first, and whether buckets take turns; `threshold` is there for the most uncertain alone."""

    kind: ItemOrder
    by_bucket: bool = False
    threshold: float | None = None

    @property
    def in_words(self) -> str:
        """The order as words within a sentence."""
        label = ItemOrder(self.kind).label.lower()
        if self.threshold is not None:
            label += f" (nearest to {self.threshold:g})"
        return f"{label}, by turns between buckets" if self.by_bucket else label


AS_SET_UP = Order(ItemOrder.POSITION)


def order_of(campaign: Campaign) -> Order:
    """The order that the campaign has now."""
    kind = ItemOrder(campaign.item_order)
    return Order(kind, campaign.by_bucket, campaign.score_threshold if kind == ItemOrder.UNCERTAIN else None)


def turn(campaign: Campaign) -> tuple[str, ...]:
    """By what items are sorted to be handed out."""
    return ("position",) if order_of(campaign) == AS_SET_UP else ("rank", "position")


def set_order(campaign: Campaign, order: Order, *, by: User) -> Job | None:
    """Hand the campaign's items out in this order from now on. Returns the job where putting them in order takes one."""
    with transaction.atomic():
        locked = Campaign.objects.select_for_update(no_key=True).get(pk=campaign.pk)
        before = order_of(locked)
        if before == order:
            return None
        _choose(campaign, order)
        detail = {"from": before.in_words, "to": order.in_words, "seed": campaign.order_seed}
        CampaignEvent.objects.create(campaign=campaign, kind="order", by=by, detail=detail)
        return put_in_order(campaign, by=by)


def put_in_order(campaign: Campaign, *, by: User) -> Job | None:
    """Give the items their ranks in the campaign's order, now or by the job that is returned; the caller is in a transaction."""
    order = order_of(campaign)
    if order == AS_SET_UP:
        return None
    if campaign.items.count() <= MOST_AT_ONCE:
        _run(campaign, order, lambda done, total: None, transaction.atomic)
        return None
    return enqueue(
        ORDER_KIND,
        {"campaign": campaign.pk, "order": order.kind, "by_bucket": order.by_bucket, "threshold": order.threshold},
        label=f"Put the items of “{campaign}” in order: {order.in_words}",
        url=campaign.get_absolute_url(),
        created_by=by,
    )


def begin_in_order(campaign: Campaign, order: Order, *, by: User) -> None:
    """The order of a new campaign, whose items are there; the caller is in a transaction. A large one is in order soon after."""
    if order == AS_SET_UP:
        return
    _choose(campaign, order)
    if campaign.items.count() <= MOST_AT_FIRST:
        _run(campaign, order, lambda done, total: None, transaction.atomic)
    else:
        put_in_order(campaign, by=by)


def order_by_job(context: JobContext) -> dict[str, Any]:
    """The handler: put the items of the payload's campaign in order, chunk by chunk, unless another order was chosen."""
    campaign = Campaign.objects.get(pk=context.payload["campaign"])
    payload = context.payload
    order = Order(ItemOrder(payload["order"]), payload["by_bucket"], payload.get("threshold"))

    def step(done: int, total: int) -> None:
        context.check()
        context.progress(done, total, "items")

    return {"items": _run(campaign, order, step, context.fenced)}


def rerank(campaign: Campaign, items: Collection[int]) -> None:
    """Bring the level of these items (ids), whose rows the caller has locked, into line with what was said of them."""
    if campaign.item_order == ItemOrder.LEAST:
        Item.objects.filter(pk__in=items).update(rank=F("rank") % STEP + _handed_out() * STEP)
    elif campaign.item_order == ItemOrder.CLOSEST:
        questions = list(campaign.questions.all())
        rows = Verdict.objects.filter(item__in=items).values_list("item_id", "tallies", "posteriors", "judgments")
        said = {item: (posteriors or counts, n) for item, counts, posteriors, n in rows.order_by("item")}
        levels = {pk: closeness(campaign.kind, questions, *said.get(pk, ({}, 0))) for pk in items}
        _write(levels, "i.rank %% %(step)s + v.n * %(step)s")


def closeness(kind: str, questions: Sequence[Question], counts: Counts, judgments: int) -> int:
    """The level of an item under closest votes, 0 to 31, from counts or likelihoods: question -> choice -> number.

    A sample is as close as the required question that passes least, since that one decides; a pick as its closest candidate.
    """
    if not judgments:
        return NOT_JUDGED
    lead = _lead(kind, questions, counts)
    if lead < 1:
        return int(lead * CONTRADICTED)
    return min(NOT_JUDGED + judgments, LAST_LEVEL)


def _lead(kind: str, questions: Sequence[Question], counts: Counts) -> float:
    """How far the strongest answer is ahead of the next, as a share of all: 0 for a tie, 1 where all say the same."""
    if kind in COMPARISONS:
        first = counts[questions[0].name]
        votes = [first.get(side, 0) for side in SIDES]
        votes.append(sum(first.values()) - sum(votes))
        highest, second, _ = sorted(votes, reverse=True)
        return (highest - second) / sum(votes) if sum(votes) else 1.0
    if kind == CampaignKind.PICK:
        return min((abs(2 * _share(each, {"picked"}) - 1) for each in counts.values()), default=1.0)
    shares = [_share(counts.get(each.name, {}), accepting(each)) for each in questions if each.required]
    return abs(2 * min(shares, default=1.0) - 1)


def _share(counts: Mapping[str, float], values: Collection[str]) -> float:
    total = sum(counts.values())
    return sum(n for value, n in counts.items() if value in values) / total if total else 1.0


def _handed_out() -> Any:
    """The judgments of an item and those that are on their way. A lease that runs out counts until the item is next touched."""
    held = (
        Assignment.objects.live()
        .that_count()
        .filter(item=OuterRef("pk"))
        .order_by()
        .values("item")
        .annotate(count=CountRows("pk"))
        .values("count")
    )
    return Least(F("judged") + Coalesce(Subquery(held), 0), LAST_LEVEL)


def _choose(campaign: Campaign, order: Order) -> None:
    campaign.item_order, campaign.by_bucket, threshold = order
    if threshold is not None:
        campaign.score_threshold = threshold
    if order.kind == ItemOrder.RANDOM:
        campaign.order_seed = secrets.randbelow(2**31)
    campaign.save(update_fields=["item_order", "by_bucket", "order_seed", "score_threshold"])


def _run(campaign: Campaign, order: Order, step: Callable[[int, int], None], block: Callable[[], Any]) -> int:
    """Give every item its rank in blocks, each a transaction, and say how many have it."""
    items, places = array("q"), array("q")
    for item, place in _places(campaign, order).iterator(chunk_size=CHUNK):
        items.append(item)
        places.append(place)
    for done in range(0, len(items), CHUNK):
        step(done, len(items))
        chosen = dict(zip(items[done : done + CHUNK], places[done : done + CHUNK], strict=True))
        with block():
            if order_of(Campaign.objects.get(pk=campaign.pk)) != order:
                return done
            # Always in the same order, here as where judgments come in.
            locks = Item.objects.select_for_update(no_key=True).filter(pk__in=chosen).order_by("pk")
            _write({pk: chosen[pk] for pk in locks.values_list("pk", flat=True)}, "v.n")
            rerank(campaign, chosen)
    step(len(items), len(items))
    return len(items)


def _places(campaign: Campaign, order: Order) -> QuerySet[Item, tuple[int, int]]:
    """(item, place from 0). Where buckets take turns, items of one place belong to different buckets, and what is done counts
    first, so that a bucket that is behind catches up."""
    by: list[Any] = ["position"]
    if order.kind == ItemOrder.RANDOM:
        text = Concat(Value(f"{campaign.order_seed}:"), Cast("position", TextField()))
        by.insert(0, Func(text, template="sha256(convert_to(%(expressions)s, 'UTF8'))", output_field=BinaryField()))
    if order.kind in SCORE_ORDERS:
        by.insert(0, _by_score(order))
    if order.by_bucket:
        number = Window(RowNumber(), partition_by=["bucket", "is_gold"], order_by=["is_open", *by]) - 1
    else:
        number = Window(RowNumber(), order_by=by) - 1
    return campaign.items.annotate(place=number).order_by("pk").values_list("pk", "place")


def _by_score(order: Order) -> OrderBy:
    """What no model gave a score comes last, as set up."""
    if order.kind == ItemOrder.HIGHEST:
        return F("score").desc(nulls_last=True)
    if order.kind == ItemOrder.LOWEST:
        return F("score").asc(nulls_last=True)
    return Abs(F("score") - (order.threshold or 0.0)).asc(nulls_last=True)


def _write(numbers: Mapping[int, int], rank: str) -> None:
    """Set the rank of items, whose rows the caller has locked, to this SQL of `v.n`, the number that each has here."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE curation_item i SET rank = {rank} FROM unnest(%(items)s::bigint[], %(numbers)s::int[]) v (item, n) "  # noqa: S608
            "WHERE i.id = v.item",
            {"items": list(numbers), "numbers": list(numbers.values()), "step": STEP},
        )
