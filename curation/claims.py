"""Claims: the free items of a campaign that come next, locked for one rater while they are handed out."""

# ruff: noqa: S608 (Statements are put together from constants of this module and of models.)

from collections.abc import Sequence
from typing import Any

from django.db import transaction

from accounts.models import User
from accounts.rows import Columns, fetch
from curation.grids import prompts_beside_each_other
from curation.models import FREE, Campaign, Item
from curation.order import turn

ITEM = Columns(Item)
# What anybody may hold, however little is left for others.
SMALL = 10
# The free items are counted only up to where their number changes nothing more; not at all where nobody can be left without:
# everybody gets each item then.
COUNT_FREE = f"""
SELECT CASE WHEN (SELECT count(*) FROM curation_campaignrater r WHERE r.campaign_id = %s AND r.removed_at IS NULL) > %s
            THEN (SELECT count(*) FROM (SELECT 1 FROM curation_item WHERE campaign_id = %s AND is_open AND {FREE} LIMIT %s) free) END
"""
# How often items that look free may turn out not to be. Each time somebody else came through with them.
WAITS = (False,) * 50


def claim(
    campaign: Campaign, rater: User, wanted: int, *, among: Sequence[int] | None = None, together: bool = False
) -> list[Item]:
    """Items for this rater, locked, at most `wanted`, among these (ids) where some are named, or `together`, prompt by prompt;
    empty only where none is free. The caller is in a transaction."""
    order = ", ".join(turn(campaign))
    values: list[Any] = [campaign.pk, rater.pk, campaign.overlap]
    where = f"campaign_id = %s AND is_open AND {FREE}"
    if among is not None:
        where, values = f"{where} AND id = ANY(%s)", [*values, list(among)]
    in_turn, in_turn_values = f"SELECT id FROM curation_item WHERE {where} ORDER BY {order} LIMIT %s", [*values, wanted]
    if together:
        prompts = prompts_beside_each_other(campaign, rater, wanted)
        in_turn = (
            f"SELECT id FROM curation_item WHERE {where} AND prompt_id = ANY(%s) "
            f"ORDER BY array_position(%s::bigint[], prompt_id), {order} LIMIT %s"
        )
        in_turn_values = [*values, prompts, prompts, wanted]
    again = f"SELECT {ITEM.sql} FROM curation_item WHERE {where} AND id = ANY(%s) ORDER BY {order}"
    # At first items that others are busy with are passed over. Where those are all that is left, their answer is waited for.
    for skip_locked in (True, True, *WAITS):
        before = transaction.savepoint()
        if skip_locked:
            locked = _ids(f"{in_turn} FOR NO KEY UPDATE SKIP LOCKED", in_turn_values)
        else:
            # Whoever waits does so in the order in which everybody locks, whatever the campaign's is.
            first = _ids(in_turn, in_turn_values)
            if not first:
                transaction.savepoint_rollback(before)
                break
            by_key = f"SELECT id FROM curation_item WHERE {where} AND id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"
            locked = _ids(by_key, [*values, first])
        # A row that another rater leased between the start of that statement and our lock looks free in its snapshot; the
        # next statement has a newer one.
        chosen = [ITEM.read(row) for row in fetch(again, [*values, locked])] if locked else []
        if chosen:
            return chosen
        # Locks that came to nothing are given back: whoever waits while holding some might be waited for in turn.
        transaction.savepoint_rollback(before)
        # That none could be locked says nothing yet: a row that was judged while we waited is looked at anew with the count of its
        # judgments as it is and the leases as they were, and so counts one person twice.
    return []


def fair_share(campaign: Campaign, rater: User, count: int, *, held: int) -> int:
    """How many of `count` items this rater may have, who holds so many: near a campaign's end half of what there is, so that a
    screen that keeps much in hand leaves others something to do. What they hold already they keep."""
    if count <= SMALL:
        return count
    enough = 2 * count - held
    [(free,)] = fetch(COUNT_FREE, [campaign.pk, campaign.overlap, campaign.pk, rater.pk, campaign.overlap, enough])
    return count if free is None else min(count, max(SMALL, (held + free) // 2))


def _ids(statement: str, values: Sequence[Any]) -> list[int]:
    return [pk for (pk,) in fetch(statement, values)]
