"""Images that are read and decoded beside what is done with those before them."""

import os
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

from PIL import Image

from training.engine.manifests import Item
from training.engine.pixels import read_image
from training.engine.shapes import Shape

# What is read ahead at most: bytes of decoded images.
AHEAD_BYTES = 256 * 2**20
# Threads that read them. Those for another machine's storage mostly wait for it; how many decode at once `pixels` says.
THREADS, FAR_THREADS = 4, 16

Wanted = tuple[str, Item, Shape]


class Ahead:
    """Reads images under their keys until they are taken. `side` is a usual one in pixels, by which the memory is counted;
    only one thread may use it."""

    def __init__(self, side: int) -> None:
        self._room = max(1, AHEAD_BYTES // (3 * side**2))
        self._readers: dict[bool, ThreadPoolExecutor] = {}
        self._images: dict[str, Future[Image.Image]] = {}

    @property
    def is_full(self) -> bool:
        return len(self._images) >= self._room

    def expect(self, wanted: Wanted) -> None:
        """Begin to read an image, unless that has begun or there is no room."""
        key, item, shape = wanted
        if key not in self._images and not self.is_full:
            self._images[key] = self._pool(item.is_far).submit(read_image, item, shape)

    def take(self, wanted: Wanted) -> Image.Image:
        """The image, by whomever it is read. Raises `RunRefused` where it is missing, unreadable or not the one of its
        sha256."""
        key, item, shape = wanted
        begun = self._images.pop(key, None)
        return begun.result() if begun else read_image(item, shape)

    def forget(self, key: str) -> None:
        """An image that is not wanted any more."""
        self._images.pop(key, None)

    def close(self) -> None:
        """Read nothing any more."""
        for pool in self._readers.values():
            pool.shutdown(wait=True, cancel_futures=True)
        self._readers, self._images = {}, {}

    def _pool(self, is_far: bool) -> ThreadPoolExecutor:
        if is_far not in self._readers:
            threads = FAR_THREADS if is_far else min(THREADS, os.cpu_count() or 1)
            self._readers[is_far] = ThreadPoolExecutor(threads, "images ahead")
        return self._readers[is_far]


def read_in_order(images: Sequence[Wanted], side: int) -> Generator[Image.Image, None, None]:
    """All of them, each while those after it are read already."""
    with closing(Ahead(side)) as ahead:
        begun = 0
        for wanted in images:
            while begun < len(images) and not ahead.is_full:
                ahead.expect(images[begun])
                begun += 1
            yield ahead.take(wanted)
