"""What validation sees and training never does."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from training.engine.holdout import split_sources
from training.engine.manifests import Item
from training.engine.recipe import RunRefused


def pair(preferred: int, rejected: int) -> Item:
    return Item(Path(f"{preferred}.png"), "a cat", f"{preferred:064x}", Path(f"{rejected}.png"), f"{rejected:064x}")


def images(pairs: Iterable[Item]) -> set[str]:
    return {sha256 for each in pairs for sha256 in (each.sha256, each.rejected_sha256)}


def item(number: int, caption: str = "a cat") -> Item:
    return Item(Path(f"{number}.png"), caption, f"{number:064x}")


def test_share_of_each_source_is_held_out_and_nothing_of_it_leaks_through_another() -> None:
    first = [item(number) for number in range(40)]
    # Half of the second source are images of the first, under other captions.
    second = [item(number, "a cat, as a sticker") for number in range(20, 60)]
    one, two = split_sources([first, second], 0.1)
    held = {each.sha256 for split in (one, two) for each in split.items[split.trained :]}
    trained = {each.sha256 for split in (one, two) for each in split.items[: split.trained]}
    assert len(held) >= 4
    assert not held & trained
    assert held | trained == {each.sha256 for each in first + second}
    assert one.held >= 4
    assert two.held >= 4
    assert list(one.for_validation) == list(range(one.trained, 40))


def test_split_is_that_of_the_images_whatever_their_order() -> None:
    items = [item(number) for number in range(30)]
    (forward,), (backward,) = split_sources([items], 0.2), split_sources([items[::-1]], 0.2)
    assert {each.sha256 for each in forward.items[24:]} == {each.sha256 for each in backward.items[24:]}


def test_source_too_small_to_hold_any_out_is_validated_on_what_it_trains_on() -> None:
    (split,) = split_sources([[item(number) for number in range(5)]], 0.1)
    assert (split.held, split.trained, len(split.for_validation)) == (0, 5, 5)


def test_no_share_changes_nothing() -> None:
    items = [item(number) for number in range(30)]
    (split,) = split_sources([items], 0.0)
    assert list(split.items) == items


def test_source_that_others_hold_out_whole_is_refused() -> None:
    items = [item(number) for number in range(20)]
    (split,) = split_sources([items], 0.5)
    with pytest.raises(RunRefused, match="held out"):
        split_sources([items, list(split.items[10:12])], 0.5)


def test_pairs_that_share_an_image_are_held_out_together() -> None:
    # Of three images each: the first beats both others, and the second the third.
    threes = [pair(n + a, n + b) for n in range(0, 60, 3) for a, b in ((0, 1), (0, 2), (1, 2))]
    # In another source the best of the first ten meet images of their own.
    others = [pair(1000 + n, n) for n in range(0, 30, 3)] + [pair(2000 + n, 3000 + n) for n in range(30)]
    one, two = split_sources([threes, others], 0.2)
    held = images([*one.items[one.trained :], *two.items[two.trained :]])
    assert not held & images([*one.items[: one.trained], *two.items[: two.trained]])
    # A fifth of the 40 images that are preferred in one, two of three pairs, and what the other holds out.
    assert one.held >= 12
    assert one.held % 3 == 0
    assert two.held >= 8
    (again,) = split_sources([threes], 0.2)
    (backward,) = split_sources([threes[::-1]], 0.2)
    assert again.held == 12
    assert images(again.items[again.trained :]) == images(backward.items[backward.trained :])


def test_pairs_that_all_hang_together_are_validated_on_what_is_trained_on() -> None:
    chain = [pair(number, number + 1) for number in range(50)]
    (split,) = split_sources([chain], 0.2)
    assert (split.held, split.trained, len(split.for_validation)) == (0, 50, 50)
    # Beside it there are some that may be held out.
    (split,) = split_sources([[*chain, pair(100, 101), pair(102, 103)]], 0.2)
    assert images(split.items[split.trained :]) == images([pair(100, 101), pair(102, 103)])
