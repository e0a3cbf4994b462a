"""Latents and captions that are made as they are drawn, for corpora of which not all can be made before the first step.

What a step draws is known in advance, so images are read a little ahead, beside the steps, and encoded right before
the step that needs them, unless they are still on disk from an earlier draw (see `drawn`). A latent is the same to the bit
whether it is made now or was kept.
"""

from collections.abc import Iterable, Sequence

from training.engine.ahead import Ahead, Wanted
from training.engine.drawn import Drawn
from training.engine.draws import Draw
from training.engine.encodings import Encoder, Entries, pooled_key
from training.engine.manifests import Item
from training.engine.pixels import to_pixels
from training.engine.shapes import Shape
from training.engine.stores import ShardStore

# So many images lie as numbers in memory, and on a GPU, at once.
ENCODED_AT_ONCE = 8


class OnDemand:
    """Makes what draws of some sources need, and has the stores hold it in memory for a while.

    `sources` are the numbers of these sources in `items` and `shapes`; `drawn` is where what was made is kept on disk, None
    where nothing is; `has_pooled` says whether a caption has a vector beside its sequence. Only one thread may use it.
    """

    def __init__(
        self,
        encoder: Encoder,
        items: Sequence[Sequence[Item]],
        shapes: Sequence[Sequence[Shape]],
        sources: Iterable[int],
        latents: ShardStore,
        texts: ShardStore,
        drawn: Drawn | None = None,
        *,
        has_pooled: bool = False,
    ) -> None:
        self.encoder = encoder
        self.drawn = drawn
        self._has_pooled = has_pooled
        self.sources = frozenset(sources)
        self._items, self._shapes = items, shapes
        self._latents, self._texts = latents, texts
        self._ahead = Ahead(encoder.pipeline.resolution)

    def expect(self, draws: Iterable[Draw]) -> None:
        """Begin to read the images of draws that will be wanted soon, as many as there is room for."""
        for draw in draws:
            if self._ahead.is_full:
                return
            if draw.source not in self.sources:
                continue
            wanted = self._image(draw)
            if wanted[0] not in self._latents and not self._has(wanted[:1]):
                self._ahead.expect(wanted)

    def provide(self, draws: Iterable[Draw]) -> None:
        """Make what is missing for these draws. Raises `RunRefused` for an image that is missing, unreadable or not the one
        of its sha256."""
        draws = [draw for draw in draws if draw.source in self.sources]
        wanted = [self._image(draw) for draw in draws]
        self._provide_latents({each[0]: each for each in wanted})
        texts = set()
        for draw, (_, item, _) in zip(draws, wanted, strict=True):
            text_key = self.encoder.text_key(item.caption)
            if not draw.drop_caption and text_key not in self._texts:
                entries = self._caption(item.caption, text_key)
                texts |= set(entries)
                self._texts.hold(entries, besides=texts)

    def _provide_latents(self, wanted: dict[str, Wanted]) -> None:
        missing = [key for key in wanted if key not in self._latents]
        made: Entries = {}
        for key in missing:
            if self.drawn is not None and self._has([key]):
                self._ahead.forget(key)
                made[key] = self.drawn[key]
        to_make = [key for key in missing if key not in made]
        for start in range(0, len(to_make), ENCODED_AT_ONCE):
            keys = to_make[start : start + ENCODED_AT_ONCE]
            pixels = [to_pixels(self._ahead.take(wanted[key])) for key in keys]
            made |= self._kept(dict(zip(keys, self.encoder.encode_images(pixels), strict=True)))
        self._latents.hold(made, besides=set(wanted))

    def _caption(self, caption: str, key: str) -> Entries:
        keys = [key, pooled_key(key)] if self._has_pooled else [key]
        if self.drawn is not None and self._has(keys):
            return {each: self.drawn[each] for each in keys}
        return self._kept(self.encoder.encode_caption(caption))

    def _has(self, keys: Sequence[str]) -> bool:
        """Whether all of them are on disk, or on their way there."""
        drawn = self.drawn
        return drawn is not None and all(key in drawn for key in keys)

    def _kept(self, entries: Entries) -> Entries:
        if self.drawn is not None:
            self.drawn.keep(entries)
        return entries

    def close(self) -> None:
        """Read nothing ahead any more, and have written what was to be kept."""
        self._ahead.close()
        if self.drawn is not None:
            self.drawn.close()

    def _image(self, draw: Draw) -> Wanted:
        item, shape = self._items[draw.source][draw.image], self._shapes[draw.source][draw.image]
        return self.encoder.latent_key(item.sha256, shape), item, shape
