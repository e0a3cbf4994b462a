"""Latents and captions that are made as they are drawn, for corpora of which not all can be made before the first step.

What a step draws is known in advance, so images are read a little ahead, beside the steps, and encoded right before
the step that needs them, unless they are still on disk from an earlier draw (see `drawn`). A latent is the same to the bit
whether it is made now or was kept.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image

from training.engine.drawn import Drawn
from training.engine.draws import Draw
from training.engine.encodings import Encoder, Entries, pooled_key
from training.engine.manifests import Item
from training.engine.pixels import read_image, to_pixels
from training.engine.shapes import Shape
from training.engine.stores import ShardStore

# What is read ahead at most: bytes of decoded images, and threads that decode them.
AHEAD_BYTES = 256 * 2**20
THREADS = 4


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
        self._readers: ThreadPoolExecutor | None = None
        self._ahead: dict[str, Future[Image.Image]] = {}
        side = encoder.pipeline.resolution
        self._room = max(1, AHEAD_BYTES // (3 * side**2))

    def expect(self, draws: Iterable[Draw]) -> None:
        """Begin to read the images of draws that will be wanted soon, as many as there is room for."""
        for draw in draws:
            if len(self._ahead) >= self._room:
                return
            if draw.source not in self.sources:
                continue
            item, shape, key = self._image(draw)
            if key not in self._latents and key not in self._ahead and not self._has([key]):
                self._ahead[key] = self._pool().submit(read_image, item, shape)

    def provide(self, draws: Iterable[Draw]) -> None:
        """Make what is missing for these draws. Raises `RunRefused` for an image that is missing, unreadable or not the one
        of its sha256."""
        latents, texts = set(), set()
        for draw in draws:
            if draw.source not in self.sources:
                continue
            item, shape, key = self._image(draw)
            latents.add(key)
            if key not in self._latents:
                self._latents.hold(self._latent(item, shape, key), besides=latents)
            text_key = self.encoder.text_key(item.caption)
            if not draw.drop_caption and text_key not in self._texts:
                entries = self._caption(item.caption, text_key)
                texts |= set(entries)
                self._texts.hold(entries, besides=texts)

    def _latent(self, item: Item, shape: Shape, key: str) -> Entries:
        ahead = self._ahead.pop(key, None)
        if self.drawn is not None and self._has([key]):
            return {key: self.drawn[key]}
        image = ahead.result() if ahead else read_image(item, shape)
        return self._kept({key: self.encoder.encode_image(to_pixels(image))})

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
        if self._readers is not None:
            self._readers.shutdown(wait=True, cancel_futures=True)
        if self.drawn is not None:
            self.drawn.close()
        self._readers, self._ahead = None, {}

    def _image(self, draw: Draw) -> tuple[Item, Shape, str]:
        item, shape = self._items[draw.source][draw.image], self._shapes[draw.source][draw.image]
        return item, shape, self.encoder.latent_key(item.sha256, shape)

    def _pool(self) -> ThreadPoolExecutor:
        if self._readers is None:
            self._readers = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1), "images ahead")
        return self._readers
