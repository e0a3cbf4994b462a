"""The images that only validation sees: the same for every run on the same datasets, and in no source's training."""

from collections.abc import Sequence
from dataclasses import dataclass

from training.engine.draws import key_words
from training.engine.manifests import Item
from training.engine.recipe import RunRefused


@dataclass(frozen=True)
class Split:
    """A source's items, those that are trained on first; `held` counts the ones at the end that are not."""

    items: tuple[Item, ...]
    held: int

    @property
    def trained(self) -> int:
        return len(self.items) - self.held

    @property
    def for_validation(self) -> range:
        """Indices that validation takes: the held-out ones, or all where the source is too small to hold any out."""
        return range(self.trained, len(self.items)) if self.held else range(len(self.items))


def split_sources(sources: Sequence[Sequence[Item]], share: float) -> list[Split]:
    """Hold out `share` of each source's images, rounded down, by a hash of their bytes.

    An image that one source holds out is trained on in none, under no caption: of what a source holds out, nothing leaks
    through another. Of pairs the preferred images are counted; a pair whose rejected image is held out is held out too. Raises `RunRefused` where a source would have nothing left to train on.
    """
    held: set[str] = set()
    for items in sources:
        ranked = sorted({item.sha256 for item in items}, key=lambda sha256: key_words("holdout", sha256))
        held.update(ranked[: int(share * len(ranked))])
    splits = []
    for items in sources:
        outside = [item for item in items if {item.sha256, item.rejected_sha256} & held]
        if len(outside) == len(items):
            raise RunRefused(
                "All images of a source are held out for validation, since other sources hold them out. Lower the share.",
                field="holdout",
            )
        splits.append(
            Split((*(item for item in items if not {item.sha256, item.rejected_sha256} & held), *outside), len(outside))
        )
    return splits
