"""Sets: two sets of as many pictures beside each other, one by the baseline and one by the candidate, from the same prompts and
seeds. What a rater says of them is about each as a whole: how varied it is, no single picture shows.

Of an item's 2k slots the first k are the baseline's and the last k the candidate's; a picture's partner, from the same prompt and
seed, is k slots further. A comparison of single pictures is the case of k = 1.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from generation.models import Sample

T = TypeVar("T")
# Squares, so that a set is a grid as wide as it is high.
SIZES = (4, 9, 16)
USUAL_SIZE = 9


class SetsRefused(ValueError):
    """Two sets that cannot be compared; the message is for a person."""


def side_of(slot: int, slots: int) -> int:
    """0 for a slot of the baseline and 1 for one of the candidate, of so many slots in all."""
    return slot // (slots // 2)


def halves(shown: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """What stands on the left and on the right."""
    half = len(shown) // 2
    return shown[:half], shown[half:]


def are_whole(order: Sequence[int]) -> bool:
    """Whether each half of what was shown, from left to right, is one of the two sets."""
    half = len(order) // 2
    return len({side_of(slot, len(order)) for slot in order[:half]}) == 1


def check_sets(baseline: Sequence[Sample], candidate: Sequence[Sample]) -> None:
    """Raises SetsRefused unless both are sets of one of SIZES, from the same prompts and seeds in the same order."""
    if len(baseline) not in SIZES or len(candidate) != len(baseline):
        sizes = ", ".join(map(str, SIZES[:-1]))
        raise SetsRefused(
            f"Both sets have {sizes} or {SIZES[-1]} images; these have {len(baseline)} and {len(candidate)}."
        )
    before, after = ([(each.prompt_id, each.seed) for each in samples] for samples in (baseline, candidate))
    if before != after:
        raise SetsRefused("Both sets must be drawn from the same prompts and seeds.")


def show_many_prompts(sets: Iterable[Sequence[Sample]]) -> bool:
    """Whether these sets show different prompts each. Raises SetsRefused where some do and some do not."""
    found = {len({sample.prompt_id for sample in samples}) > 1 for samples in sets}
    if len(found) > 1:
        raise SetsRefused("Either every set shows one prompt, or every set several.")
    return found == {True}
