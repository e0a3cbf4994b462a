"""Orders without lists: permutations, each as likely as another as far as counts can tell."""

from collections import Counter
from itertools import pairwise

import pytest

from training.engine.shuffles import shuffled


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 63, 1000])
def test_every_thing_has_one_place(size: int) -> None:
    for key in (0, 1, 2**64 - 1):
        assert sorted(shuffled(place, size, key) for place in range(size)) == list(range(size))


def test_things_of_a_very_long_order_differ_and_lie_anywhere() -> None:
    size = 3_000_000_001
    seen = [shuffled(place, size, 7) for place in range(2000)]
    assert len(set(seen)) == len(seen)
    assert all(0 <= each < size for each in seen)
    # The mean of 2,000 even draws lies within four of its standard deviations.
    assert abs(sum(seen) / len(seen) / size - 0.5) < 4 * (1 / 12 / len(seen)) ** 0.5
    # Neighbours know nothing of each other: as many rises as falls, but for chance (variance of a random order: n / 12).
    rises = sum(a < b for a, b in pairwise(seen))
    assert abs(rises - len(seen) / 2) < 4 * (len(seen) / 12) ** 0.5


@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_orders_of_few_things_are_equally_likely(size: int) -> None:
    keys = range(12_000)
    orders = Counter(tuple(shuffled(place, size, key * 0x9E3779B97F4A7C15) for place in range(size)) for key in keys)
    expected = {2: 2, 3: 6, 4: 24}[size]
    assert len(orders) == expected
    mean = len(keys) / expected
    assert all(abs(count - mean) < 5 * mean**0.5 for count in orders.values())
