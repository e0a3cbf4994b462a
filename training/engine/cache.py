"""The inputs of a run: latents and text embeddings, from the cache that all runs share or made as they are drawn.

Those of dataset versions and of small corpora are made before the first step and kept in files, by their keys (see
`encodings`). Of larger corpora that would take days and fill the disk: theirs are made on demand, and kept as far as there is room.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch.nn import functional

from generation.engine.families import STABLE_DIFFUSION_XL
from generation.engine.folders import Manifest
from generation.engine.pipeline import Pipeline
from training.engine.ahead import read_in_order
from training.engine.drawn import Drawn
from training.engine.draws import Draw
from training.engine.encodings import Encoder, Entries, pooled_key
from training.engine.lazy import LazySequence
from training.engine.manifests import Item
from training.engine.on_demand import OnDemand
from training.engine.pixels import to_pixels
from training.engine.recipe import CACHED_FIRST
from training.engine.shapes import Shape
from training.engine.stores import ShardStore
from training.engine.texts import Text, text_length

SHARD_ENTRIES = 256
FLOAT_BYTES = 4

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Encoded:
    """The inputs of a run: `latent(draw)` is [2, C, H, W] (mean, std) and `caption(draw)` the sequence [L, D] and, where the
    model takes the text as one vector too, [P], all float32. The stores have them by key, but for what is made on demand.

    `shapes` are those of the images, and of both images of a pair: a latent's H and W are the shape's, divided by the VAE's
    factor. `rejected_keys` are the latents of the rejected images where the sources are pairs. `text_length` is L where the
    store leaves out what is zero at the end. `latent_factor` is how many pixels a side of a latent stands for, where the
    denoiser is told the image's size. `on_demand` is None where all was cached first.
    """

    latents: ShardStore
    texts: ShardStore
    shapes: tuple[Sequence[Shape], ...]
    latent_keys: tuple[Sequence[str], ...]
    text_keys: tuple[Sequence[str], ...]
    empty_text_key: str
    rejected_keys: tuple[Sequence[str], ...] = ()
    text_length: int = 0
    latent_factor: int = 0
    on_demand: OnDemand | None = None

    @property
    def has_pooled(self) -> bool:
        return self.text_length > 0

    def shape_of(self, draw: Draw) -> Shape:
        return self.shapes[draw.source][draw.image]

    def latent(self, draw: Draw, *, rejected: bool = False) -> torch.Tensor:
        """Mean and standard deviation of the image's, or of the other image's of a pair."""
        self._provide(draw)
        return self.latents[(self.rejected_keys if rejected else self.latent_keys)[draw.source][draw.image]]

    def caption(self, draw: Draw) -> Text:
        """The draw's caption, or the empty one where that is drawn."""
        self._provide(draw)
        key = self.empty_text_key if draw.drop_caption else self.text_keys[draw.source][draw.image]
        return self.text(key), self.pooled(key) if self.has_pooled else None

    def text(self, key: str) -> torch.Tensor:
        stored = self.texts[key]
        return functional.pad(stored, (0, 0, 0, self.text_length - len(stored))) if self.text_length else stored

    def pooled(self, key: str) -> torch.Tensor:
        return self.texts[pooled_key(key)]

    def use(self, pipeline: Pipeline) -> None:
        """Make what is made on demand with the same parent, loaded again."""
        if self.on_demand is not None:
            self.on_demand.encoder.pipeline = pipeline

    @property
    def damaged(self) -> list[str]:
        """The names of files of the cache that were found damaged, set aside and made again."""
        drawn = self.on_demand.drawn if self.on_demand else None
        return [*self.latents.damaged, *self.texts.damaged, *(drawn.store.damaged if drawn else [])]

    def close(self) -> None:
        """Read nothing ahead any more, and hold nothing of the cache."""
        if self.on_demand is not None:
            self.on_demand.close()
        self.latents.close()
        self.texts.close()

    def _provide(self, draw: Draw) -> None:
        if self.on_demand is not None:
            self.on_demand.provide([draw])


def encode_sources(
    pipeline: Pipeline,
    parent_manifest: Manifest,
    sources: Sequence[Sequence[Item]],
    cache_dir: Path,
    report: Report = lambda done, total: None,
    *,
    with_captions: bool = True,
    shapes: Sequence[Sequence[Shape]] | None = None,
    corpus_bytes: float = float("inf"),
    keeps_drawn: bool = True,
    check_room: Callable[[int], None] = lambda missing: None,
    spare_bytes: Callable[[], int] = lambda: 0,
) -> Encoded:
    """Make sure that every image and caption is in the cache; a decoder needs no captions. Where those of all corpora would
    take more than `corpus_bytes`, or are very many, theirs are left to be made on demand, and as many bytes of them kept on disk
    if `keeps_drawn`; not for a decoder, which may lie in
    memory in another way by then. Without `shapes`, one for each item, all images are squares of the model's own side.
    `check_room(bytes)` is called with what the missing ones will take on disk, before the first is made, and may raise;
    `spare_bytes()` are what of the cache's disk is left to others by what is made on demand;
    `report(done, total)` after each new entry, and may raise to stop. Raises `RunRefused` for an image that is
    missing, unreadable or not the one of its sha256."""
    encoder = Encoder.of(pipeline, parent_manifest)
    latents, texts = ShardStore(cache_dir / "latents"), ShardStore(cache_dir / "texts")
    square = Shape(pipeline.resolution, pipeline.resolution)
    shapes = shapes or [LazySequence(len(items), lambda number: square) for items in sources]
    drawn = _left_for_later(encoder, sources, corpus_bytes) if with_captions else []
    first = [number for number in range(len(sources)) if number not in drawn]

    images: dict[str, tuple[Item, Shape]] = {}
    captions = {"": encoder.text_key("")} if with_captions else {}
    for number in first:
        for item, shape in zip(sources[number], shapes[number], strict=True):
            for each in (item, *([item.loser] if item.rejected is not None else [])):
                images[encoder.latent_key(each.sha256, shape)] = each, shape
            if with_captions:
                captions[item.caption] = encoder.text_key(item.caption)
    missing_images = [key for key in images if key not in latents]
    missing_captions = [caption for caption, key in captions.items() if key not in texts]
    check_room(_missing_bytes(encoder, texts, [images[key][1] for key in missing_images], len(missing_captions)))
    total = len(missing_images) + len(missing_captions)
    done = _fill(texts, map(encoder.encode_caption, missing_captions), report, 0, total)
    missing = [(key, *images[key]) for key in missing_images]
    with closing(read_in_order(missing, pipeline.resolution)) as read:
        made = ({key: encoder.encode_image(to_pixels(image))} for key, image in zip(missing_images, read, strict=True))
        _fill(latents, made, report, done, total)
    length = text_length(pipeline)
    kept = (
        Drawn(cache_dir / "drawn", corpus_bytes, spare_bytes()) if drawn and corpus_bytes > 0 and keeps_drawn else None
    )
    return Encoded(
        latents=latents,
        texts=texts,
        shapes=tuple(shapes),
        latent_keys=tuple(_latent_keys(encoder, *each) for each in zip(sources, shapes, strict=True)),
        rejected_keys=tuple(_rejected_keys(encoder, *each) for each in zip(sources, shapes, strict=True)),
        text_keys=tuple(_text_keys(encoder, items) for items in sources),
        empty_text_key=encoder.text_key(""),
        text_length=length,
        latent_factor=pipeline.pipe.vae_scale_factor if pipeline.report.pipeline == STABLE_DIFFUSION_XL.pipeline else 0,
        on_demand=OnDemand(encoder, sources, shapes, drawn, latents, texts, kept, has_pooled=length > 0)
        if drawn
        else None,
    )


def _left_for_later(encoder: Encoder, sources: Sequence[Sequence[Item]], most: float) -> list[int]:
    """The numbers of the corpora among the sources where they are not cached first, all of them or none."""
    corpora = [number for number, items in enumerate(sources) if items[0].member]
    if not corpora:
        return []
    images = sum(len(sources[number]) for number in corpora)
    # A grey image takes as much as any, and an empty caption too.
    side = encoder.pipeline.resolution
    entries = [encoder.encode_image(torch.zeros(3, side, side)), *encoder.encode_caption("").values()]
    takes = images * sum(each.nbytes for each in entries)
    return corpora if images > CACHED_FIRST or takes > most else []


def _missing_bytes(encoder: Encoder, texts: ShardStore, shapes: Sequence[Shape], captions: int) -> int:
    """What latents of these shapes and so many captions take on disk: a mean and a standard deviation of each number of a
    latent, and as much for one caption as for another."""
    report = encoder.pipeline.report
    factor = report.resolution // report.latent_size
    numbers = sum(2 * report.latent_channels * (each.width // factor) * (each.height // factor) for each in shapes)
    return FLOAT_BYTES * numbers + captions * (_caption_bytes(encoder, texts) if captions else 0)


def _caption_bytes(encoder: Encoder, texts: ShardStore) -> int:
    key = encoder.text_key("")
    if key not in texts:
        return sum(each.nbytes for each in encoder.encode_caption("").values())
    pooled = pooled_key(key)
    return texts[key].nbytes + (texts[pooled].nbytes if pooled in texts else 0)


def _latent_keys(encoder: Encoder, items: Sequence[Item], shapes: Sequence[Shape]) -> Sequence[str]:
    return LazySequence(len(items), lambda number: encoder.latent_key(items[number].sha256, shapes[number]))


def _rejected_keys(encoder: Encoder, items: Sequence[Item], shapes: Sequence[Shape]) -> Sequence[str]:
    """Of no item, but where the items are pairs: all of a source's are, or none."""
    count = len(items) if items[0].rejected is not None else 0
    return LazySequence(count, lambda number: encoder.latent_key(items[number].rejected_sha256, shapes[number]))


def _text_keys(encoder: Encoder, items: Sequence[Item]) -> Sequence[str]:
    return LazySequence(len(items), lambda number: encoder.text_key(items[number].caption))


def _fill(
    store: ShardStore,
    made: Iterable[Entries],
    report: Report,
    done: int,
    total: int,
) -> int:
    """Keep what is made, some of it at a time; returns how many are done by then."""
    made = iter(made)
    while True:
        shard: Entries = {}
        for entries in islice(made, SHARD_ENTRIES):
            shard |= entries
            done += 1
            report(done, total)
        if not shard:
            return done
        store.add(shard)
