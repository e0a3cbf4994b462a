"""The images that only validation sees: the same for every run on the same datasets, and in no source's training."""

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
        """Indices that validation takes: the held-out ones, or all where the source is too small to hold any out."""
        return range(self.trained, len(self.items)) if self.held else range(len(self.items))

    def candidates(self) -> Iterator[tuple[int, Item]]:
        """Those indices with their items, one at a time."""
        if not self.held:
            return enumerate(self.items)
        return ((index, self.items[index]) for index in self.for_validation)


def split_sources(sources: Sequence[Sequence[Item]], share: float) -> list[Split]:
    """Hold out `share` of each source's images, rounded down, by a hash of their bytes.

    An image that one source holds out is trained on in none, under no caption: of what a source holds out, nothing leaks
    through another. Of pairs the preferred images are counted; a pair whose rejected image is held out is held out too. Of
    a source memory takes a few numbers an image. Raises `RunRefused` where a source would have nothing left to train on.
    """
    if not share:
        return [Split(items, 0) for items in sources]
    ranks = [_ranks(_hashes(items), len(items)) for items in sources]
    held = np.unique(np.concatenate([_first(each, share) for each in ranks]))
    splits = []
    for items, own in zip(sources, ranks, strict=True):
        outside = np.isin(own, held)
        if items[0].rejected is not None:
            outside |= np.isin(_ranks((item.rejected_sha256 for item in items), len(items)), held)
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


def _first(ranks: Ranks, share: float) -> Ranks:
    """The share of a source's images that comes first, each image counted once."""
    distinct = np.unique(ranks)
    return distinct[: int(share * len(distinct))]


def _trained_first(items: Sequence[Item], outside: NDArray[np.bool_]) -> Sequence[Item]:
    if not outside.any():
        return items
    order = np.concatenate([np.flatnonzero(~outside), np.flatnonzero(outside)]).astype(np.uint32)
    return LazySequence(len(order), lambda position: items[int(order[position])])
