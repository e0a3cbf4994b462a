"""Images as content-addressed files behind Django's storage, and the addresses under which people may see them.

The name of a file is the SHA-256 of its bytes: `images/ab/cd/<sha>.png`, `thumbs/ab/cd/<sha>.webp`. A file is written
whole before a row speaks of it, and never changes afterwards. The team opens `/media/<sha>.png`; a rater gets addresses
that are signed for one person and a short time, so that nothing about an image but its pixels reaches who judges it.
"""

import hashlib
import io
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from django.core import signing
from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage, default_storage
from django.urls import reverse
from PIL import Image

from generation.engine.images import thumbnail_bytes

if TYPE_CHECKING:
    from accounts.models import User

Kind = Literal["image", "thumbnail"]
FOLDERS: dict[str, tuple[str, str]] = {"image": ("images", "png"), "thumbnail": ("thumbs", "webp")}
CONTENT_TYPES: dict[str, str] = {"image": "image/png", "thumbnail": "image/webp"}
URL_SECONDS = 600
SHA256 = re.compile(r"[0-9a-f]{64}")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What is needed to show the pixels. Everything else a PNG may carry is metadata, which could tell a rater of the model.
PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}


class ImageRefused(ValueError):
    """Bytes that are no plain PNG; `sentence` is for a person."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


@dataclass(frozen=True)
class StoredImage:
    """An image in the store: the SHA-256 of its PNG and of its thumbnail, and its size in pixels."""

    image: str
    thumbnail: str
    width: int
    height: int


def store_image(png: bytes) -> str:
    """Keep a PNG and return its SHA-256. Raises ImageRefused for anything else, and for a PNG with metadata."""
    unexpected = set(_png_chunks(png)) - PNG_CHUNKS
    if unexpected:
        names = ", ".join(sorted(name.decode("latin-1") for name in unexpected))
        raise ImageRefused(f"The image carries metadata ({names}), which the store does not keep.")
    return _store("image", png)


def store_thumbnail(webp: bytes) -> str:
    """Keep a small WebP, as `generation.engine.images.thumbnail_bytes` encodes it, and return its SHA-256."""
    return _store("thumbnail", webp)


def store_with_thumbnail(png: bytes) -> StoredImage:
    """Keep a PNG and its thumbnail, which is at most 256 px a side and keeps the transparency."""
    image = store_image(png)
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        return StoredImage(image, store_thumbnail(thumbnail_bytes(picture)), *picture.size)


def open_image(sha256: str, kind: Kind = "image") -> File:  # type: ignore[type-arg]
    """The stored file, open for reading. Raises FileNotFoundError."""
    return default_storage.open(storage_name(sha256, kind), "rb")


def image_exists(sha256: str, kind: Kind = "image") -> bool:
    """Whether the store has the file."""
    return bool(SHA256.fullmatch(sha256)) and default_storage.exists(storage_name(sha256, kind))


def image_matches(sha256: str, kind: Kind = "image") -> bool:
    """Whether the stored file's bytes still have the hash that is their name. Raises FileNotFoundError."""
    digest = hashlib.sha256()
    with open_image(sha256, kind) as file:
        for block in file.chunks():
            digest.update(block)
    return digest.hexdigest() == sha256


def storage_name(sha256: str, kind: Kind = "image") -> str:
    """The name in the store. Raises ValueError unless the hash is 64 lower-case hex digits."""
    if not SHA256.fullmatch(sha256):
        raise ValueError("A stored image is named by 64 hex digits.")
    folder, suffix = FOLDERS[kind]
    return f"{folder}/{sha256[:2]}/{sha256[2:4]}/{sha256}.{suffix}"


def image_url(sha256: str, *, viewer: "User", kind: Kind = "image", seconds: int = URL_SECONDS) -> str:
    """An address of the image that works for `viewer` alone, for `seconds`. The caller has checked that they may."""
    claim = {"i": sha256, "k": kind, "v": viewer.pk, "e": int(time.time()) + seconds}
    return reverse("image_for_viewer", args=[signing.dumps(claim, salt="generation.image", compress=True)])


def read_image_token(token: str, *, viewer: "User") -> tuple[str, Kind, int] | None:
    """(SHA-256, kind, seconds left) of a token that is whole, in time and this person's; None otherwise."""
    try:
        claim = signing.loads(token, salt="generation.image")
    except signing.BadSignature:
        return None
    left = int(claim["e"] - time.time())
    if claim["v"] != viewer.pk or left <= 0:
        return None
    return claim["i"], claim["k"], left


def _png_chunks(png: bytes) -> Iterator[bytes]:
    """The chunk types of a PNG in order; raises ImageRefused where the chain is broken (PNG 3rd edition, section 5)."""
    if not png.startswith(PNG_SIGNATURE):
        raise ImageRefused("The image is not a PNG.")
    at, name = len(PNG_SIGNATURE), b""
    while at + 12 <= len(png):
        length, name = int.from_bytes(png[at : at + 4]), png[at + 4 : at + 8]
        yield name
        at += 12 + length
    if at != len(png) or name != b"IEND":
        raise ImageRefused("The PNG is cut short.")


def _store(kind: Kind, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    name = storage_name(sha256, kind)
    if not default_storage.exists(name):
        path = _local_path(default_storage, name)
        if path is None:
            default_storage.save(name, ContentFile(content))  # An object store shows an object only when it is whole.
        else:
            write_durably(path, content)
    return sha256


def _local_path(storage: Storage, name: str) -> Path | None:
    try:
        return Path(storage.path(name))
    except NotImplementedError:
        return None


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it is either whole under its name or not there, even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
