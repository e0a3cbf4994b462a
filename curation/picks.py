"""Picks: the best of several candidates. What raters say is resolved to slots, and each candidate is accepted or not.

An answer names places from 1, as the rater saw them from left to right, in ascending order and joined by +, such as 1+3; or it
is none. The tallies of an item have an entry for each candidate, candidate_1 being slot 0: how often it was picked and left.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from curation.models import Adjudication, AdjudicationAction, Item, ItemSample, Outcome
from curation.rules import is_picked

QUESTION = "best"
NONE = "none"
JOIN = "+"
PICKED, LEFT = "picked", "left"
PREFIX = "candidate_"
FEWEST, MOST = 2, 9  # Each has a digit.


def picked_places(value: str) -> list[int]:
    """The places of an answer, from 1; none where none is good."""
    return [] if value == NONE else [int(place) for place in value.split(JOIN)]


def picked_slots(value: str, order: Sequence[int]) -> set[int]:
    """The slots that an answer picked, where `order` stood from left to right."""
    return {order[place - 1] for place in picked_places(value)}


def tally_picks(answers: Iterable[tuple[Mapping[str, str], Sequence[int]]]) -> dict[str, dict[str, int]]:
    """Candidate -> picked and left -> count, from (answers, order) of each rater; empty while there are none."""
    counts: dict[str, dict[str, int]] = {}
    for given, order in answers:
        chosen = picked_slots(given[QUESTION], order)
        for slot in sorted(order):
            count = counts.setdefault(f"{PREFIX}{slot + 1}", {})
            said = PICKED if slot in chosen else LEFT
            count[said] = count.get(said, 0) + 1
    return {name: dict(sorted(count.items())) for name, count in sorted(counts.items())}


def question_of(name: str) -> str:
    """The question to which an entry of the tallies belongs."""
    return QUESTION if name.startswith(PREFIX) else name


def mark_candidates(
    items: Collection[Item],
    tallies: Mapping[int, Mapping[str, Mapping[str, int]]],
    outcomes: Mapping[int, str],
) -> None:
    """Write down for each candidate of these items, whose rows the caller has locked, whether it is accepted.

    What a curator decided about an item stands above what its raters picked. Undecided is None.
    """
    decided = _decided([item.pk for item in items if item.adjudicated])
    rows = list(ItemSample.objects.filter(item__in=[item.pk for item in items]))
    for row in rows:
        if row.item_id in decided:
            row.picked = row.slot in decided[row.item_id]
        elif outcomes[row.item_id] == Outcome.PENDING:
            row.picked = None
        else:
            counts = tallies[row.item_id].get(f"{PREFIX}{row.slot + 1}", {})
            row.picked = is_picked(counts.get(PICKED, 0), sum(counts.values()))
    ItemSample.objects.bulk_update(rows, ["picked"])


def _decided(items: Collection[int]) -> dict[int, set[int]]:
    rows = Adjudication.objects.filter(item__in=items, superseded_by__isnull=True, action=AdjudicationAction.DECIDE)
    return {row.item_id: picked_slots(row.answers[QUESTION], row.order) for row in rows}
