"""Mixing: at which places of a rater's sequence gold items and probes come.

The sequence of what a rater gets in a campaign is cut into stretches of 100 / percent places, and one place of each, drawn by a
keyed hash, is gold's. So gold comes as often as asked, spread over the work, and no rater can work out where. A place whose
gold item is missing, since the rater has had them all, goes to an ordinary item. Probes come at places of their own, drawn in
the same way, except where a gold item does.

Where the pictures of one prompt come together, a gold item comes only among others of its prompt, so that it does not stand alone;
where it has none, its place is lost (curation.assignments), and the page of gold items says how much gold there was.
"""

from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from typing import TypeVar

from django.utils.crypto import salted_hmac

from curation.models import CampaignRater

T = TypeVar("T")
DRAWS = 2**32


def gold_places(place: CampaignRater, percent: int, of: str = "gold") -> Iterator[int]:
    """The places from the rater's next one on, counted from 0, that are gold's, or of what else comes among the ordinary;
    without end, and none where percent is 0."""
    if not percent:
        return
    # The stretch before may reach into the place that comes next.
    stretch, last = max(place.handed_out * percent // 100 - 2, 0), -1
    while True:
        last = max((stretch * DRAWS + _draw(place, stretch, of)) * 100 // (percent * DRAWS), last + 1)
        if last >= place.handed_out:
            yield last
        stretch += 1


def count_gold(place: CampaignRater, percent: int, ordinary: int, gold: int) -> int:
    """How many of so many gold items come up before the rater could get no ordinary item any more, who still gets so many."""
    came = 0
    for number in islice(gold_places(place, percent), gold):
        if number - place.handed_out - came > ordinary:
            break
        came += 1
    return came


def gold_among(place: CampaignRater, percent: int, wanted: int, of: str = "gold") -> list[int]:
    """Which of the rater's next so many places, from 0, are gold's, or probes'."""
    end = place.handed_out + wanted
    places = takewhile(lambda number: number < end, gold_places(place, percent, of))
    return [number - place.handed_out for number in places]


def mix(ordinary: Sequence[T], gold: Sequence[T], places: Sequence[int]) -> list[T]:
    """Both in one sequence with the gold items at these places; it ends where an ordinary item is due and there is none."""
    mixed: list[T] = []
    left = iter(ordinary)
    at = dict(zip(places, gold, strict=False))
    while True:
        item = at[len(mixed)] if len(mixed) in at else next(left, None)
        if item is None:
            return mixed
        mixed.append(item)


def _draw(place: CampaignRater, stretch: int, of: str) -> int:
    # Keyed: whoever knows this code and the numbers could otherwise work out which items are gold.
    digest = salted_hmac(f"curation.{of}", f"{place.campaign_id}:{place.rater_id}:{stretch}").digest()
    return int.from_bytes(digest[:4])
