"""The images that only validation sees: the same for every run on the same datasets, and in no source's training."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.engine.corpus_items import CorpusItems
from training.engine.draws import first_word
from training.engine.lazy import LazySequence
from training.engine.manifests import Item
from training.engine.recipe import RunRefused

# One number for each image: a hash of the image's own hash, by which it is ranked and told from others.
Ranks = NDArray[np.uint64]


@dataclass(frozen=True)
class Split:
    """A source's items, those that are trained on first; `held` counts the ones at the end that are not."""

    items: Sequence[Item]
    held: int

    @property
    def trained(self) -> int:
        return len(self.items) - self.held

    @property
    def for_validation(self) -> range:
        """Indices that validation takes: the held-out ones, or all where the source can hold none out."""
        return range(self.trained, len(self.items)) if self.held else range(len(self.items))

    def candidates(self) -> Iterator[tuple[int, Item]]:
        """Those indices with their items, one at a time."""
        if not self.held:
            return enumerate(self.items)
        return ((index, self.items[index]) for index in self.for_validation)


def split_sources(sources: Sequence[Sequence[Item]], share: float) -> list[Split]:
    """Hold out `share` of each source's images, rounded down, by a hash of their bytes.

    An image that one source holds out is trained on in none, under no caption: of what a source holds out, nothing leaks
    through another. Of pairs the preferred images are counted, and all pairs that hang together by images they share are
    held out together or not at all; where too many hang together to be held out, fewer are, or none. Of a source memory
    takes a few numbers an image. Raises `RunRefused` where a source would have nothing left to train on.
    """
    if not share:
        return [Split(items, 0) for items in sources]
    ranks = [_ranks(_hashes(items), len(items)) for items in sources]
    groups = _groups(sources, ranks)
    held = np.unique(np.concatenate([_first(*each, share) for each in zip(ranks, groups, strict=True)]))
    splits = []
    for items, own in zip(sources, groups, strict=True):
        outside = np.isin(own, held)
        if outside.all():
            raise RunRefused(
                "All images of a source are held out for validation, since other sources hold them out. Lower the share.",
                field="holdout",
            )
        splits.append(Split(_trained_first(items, outside), int(outside.sum())))
    return splits


def _hashes(items: Sequence[Item]) -> Iterable[str]:
    return items.hashes() if isinstance(items, CorpusItems) else (item.sha256 for item in items)


def _ranks(hashes: Iterable[str], count: int) -> Ranks:
    return np.fromiter((first_word("holdout", sha256) for sha256 in hashes), dtype=np.uint64, count=count)


def _groups(sources: Sequence[Sequence[Item]], ranks: Sequence[Ranks]) -> list[Ranks]:
    """For each item the least rank of the images that it hangs together with, by pairs of any source: its own where there
    are no pairs."""
    rejected = [
        _ranks((item.rejected_sha256 for item in items), len(items)) if items[0].rejected is not None else own
        for items, own in zip(sources, ranks, strict=True)
    ]
    if all(other is own for other, own in zip(rejected, ranks, strict=True)):
        return list(ranks)
    images = np.unique(np.concatenate([*ranks, *rejected]))
    places = [np.searchsorted(images, own) for own in ranks]
    above = list(range(len(images)))

    def least(place: int) -> int:
        while above[place] != place:
            above[place] = above[above[place]]
            place = above[place]
        return place

    for own, other in zip(places, rejected, strict=True):
        for ends in zip(own.tolist(), np.searchsorted(images, other).tolist(), strict=True):
            low, high = sorted(map(least, ends))
            above[high] = low
    return [images[[least(place) for place in own.tolist()]] for own in places]


def _first(ranks: Ranks, groups: Ranks, share: float) -> Ranks:
    """The groups that come first by the rank of an image, as many as have together the share of a source's images, each
    image counted once; one that has more than is left of the share is passed over."""
    distinct, places = np.unique(ranks, return_index=True)
    left = int(share * len(distinct))
    if groups is ranks:
        return distinct[:left]
    held = []
    for group, size in Counter(groups[places].tolist()).items():
        if size <= left:
            held.append(group)
            left -= size
    return np.array(held, dtype=np.uint64)


def _trained_first(items: Sequence[Item], outside: NDArray[np.bool_]) -> Sequence[Item]:
    if not outside.any():
        return items
    order = np.concatenate([np.flatnonzero(~outside), np.flatnonzero(outside)]).astype(np.uint32)
    return LazySequence(len(order), lambda position: items[int(order[position])])
