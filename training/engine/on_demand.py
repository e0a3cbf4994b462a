"""Latents and captions that are made as they are drawn, for corpora of which not all can be made before the first step.

What a step draws is known in advance, so images are read a little ahead, beside the steps, and encoded right before
the step that needs them. A latent is the same to the bit whether it is made now or was cached before.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image

from training.engine.draws import Draw
from training.engine.encodings import Encoder
from training.engine.manifests import Item
from training.engine.pixels import read_image, to_pixels
from training.engine.shapes import Shape
from training.engine.stores import ShardStore

# What is read ahead at most: bytes of decoded images, and threads that decode them.
AHEAD_BYTES = 256 * 2**20
THREADS = 4


class OnDemand:
    """Makes what draws of some sources need, and has the stores hold it in memory for a while.

    `sources` are the numbers of these sources in `items` and `shapes`. Only one thread may use it.
    """

    def __init__(
        self,
        encoder: Encoder,
        items: Sequence[Sequence[Item]],
        shapes: Sequence[Sequence[Shape]],
        sources: Iterable[int],
        latents: ShardStore,
        texts: ShardStore,
    ) -> None:
        self.encoder = encoder
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
            if key not in self._latents and key not in self._ahead:
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
                ahead = self._ahead.pop(key, None)
                image = ahead.result() if ahead else read_image(item, shape)
                self._latents.hold({key: self.encoder.encode_image(to_pixels(image))}, besides=latents)
            text_key = self.encoder.text_key(item.caption)
            if not draw.drop_caption and text_key not in self._texts:
                entries = self.encoder.encode_caption(item.caption)
                texts |= set(entries)
                self._texts.hold(entries, besides=texts)

    def close(self) -> None:
        """Read nothing ahead any more."""
        if self._readers is not None:
            self._readers.shutdown(wait=True, cancel_futures=True)
        self._readers, self._ahead = None, {}

    def _image(self, draw: Draw) -> tuple[Item, Shape, str]:
        item, shape = self._items[draw.source][draw.image], self._shapes[draw.source][draw.image]
        return item, shape, self.encoder.latent_key(item.sha256, shape)

    def _pool(self) -> ThreadPoolExecutor:
        if self._readers is None:
            self._readers = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1), "images ahead")
        return self._readers
