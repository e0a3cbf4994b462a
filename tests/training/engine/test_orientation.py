"""Photos that are turned when they are shown are trained on, measured and cropped as they are shown."""

import hashlib
import io
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps

from tests.training.shards import write_shard
from training.engine.corpora import read_corpus, write_index
from training.engine.manifests import Item
from training.engine.pixels import is_opaque, read_image, read_rgba, to_pixels
from training.engine.places import find_shards
from training.engine.shapes import Shape, ShapeRule, shapes_of
from training.engine.shards import CorpusRefused

RULE = ShapeRule(32, 8, False, 2.0)


def photo(orientation: int | None, kind: str = "JPEG", exif: bytes | None = None) -> bytes:
    """Wide, and different in all of its corners."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((60, 30), Image.Resampling.NEAREST)
    options: dict[str, Any] = {} if exif is None else {"exif": exif}
    if orientation is not None:
        told = Image.Exif()
        told[ExifTags.Base.Orientation] = orientation
        options = {"exif": told}
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def item(folder: Path, content: bytes) -> Item:
    digest = hashlib.sha256(content).hexdigest()
    (folder / digest).write_bytes(content)
    return Item(folder / digest, "a cat", digest)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_is_read_as_it_is_shown(tmp_path: Path, kind: str, orientation: int) -> None:
    content = photo(orientation, kind)
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    size = (30, 60) if orientation > 4 else (60, 30)
    assert shown.size == size
    photographed = item(tmp_path, content)
    assert torch.equal(to_pixels(read_image(photographed, Shape(*size))), to_pixels(shown))
    assert torch.allclose(read_rgba(photographed, Shape(*size))[:3] * 2 - 1, to_pixels(shown), atol=1e-6)
    assert is_opaque(photographed)
    assert shapes_of([[photographed]], RULE, lambda *each: None) == ((RULE.shape_of(size),),)


def test_note_that_cannot_be_understood_turns_nothing(tmp_path: Path) -> None:
    plain, *others = (
        to_pixels(read_image(item(tmp_path, content), Shape(60, 30)))
        for content in (photo(None), photo(None, exif=b"Exif\0\0no tiff"), photo(9))
    )
    assert all(torch.equal(plain, each) for each in others)


def test_index_of_a_corpus_has_the_sizes_as_shown_and_older_ones_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    photos = ((number, photo(number)) for number in range(1, 9))
    files = {name: each for n, jpeg in photos for name, each in ((f"{n}.jpg", jpeg), (f"{n}.txt", b"a cat"))}
    write_shard(folder / "a.tar", files)
    index = tmp_path / "index"
    items = read_corpus(index, folder, write_index(find_shards(folder), index).content_hash)
    assert [(each.width, each.height) for each in items] == [(60, 30)] * 4 + [(30, 60)] * 4
    for each in items:
        to_pixels(read_image(each, RULE.shape_of((each.width, each.height))))

    index.chmod(0o644)
    with sqlite3.connect(index) as database:
        database.execute("UPDATE images SET width = 60, height = 30")
    database.close()
    older = type(items)(index, folder)
    wide = RULE.shape_of((60, 30))
    for each in list(older)[:4]:
        to_pixels(read_image(each, wide))
    for each in list(older)[4:]:
        with pytest.raises(CorpusRefused, match="Index the corpus anew"):
            to_pixels(read_image(each, wide))
        # Of a square nothing was decided by the sizes.
        assert to_pixels(read_image(each, Shape(32, 32))).shape == (3, 32, 32)
