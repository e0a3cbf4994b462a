"""Shards: plain tar files of images, mostly with captions, as WebDataset lays them out, read without being unpacked.

A sample is the members of one name that stand side by side: NAME.png, .jpg, .jpeg or .webp, with a caption in NAME.txt or
under "caption" in NAME.json; where both have one, the text counts. Images without one may be taken too, with the empty
caption. A name ends at the first dot after the last slash.
Other members are passed over. This module imports no torch.
"""

import errno
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from training.engine.orientation import orientation_of, upright_size
from training.engine.recipe import RunRefused

IMAGE_ENDINGS = ("png", "jpg", "jpeg", "webp")
CAPTION_ENDINGS = ("txt", "json")
FORMATS = ("PNG", "JPEG", "WEBP")
# What becomes RGBA without loss of meaning; a depth of 16 bits would be cut off at white.
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
MOST_IMAGE_BYTES = 64 * 2**20
MOST_PIXELS = 64_000_000
MOST_CAPTION_BYTES = 2**20
MOST_CAPTION = 2000
# needed: an image without a caption is left out. optional: it is taken, with the empty one; a caption that cannot be read
# leaves its image out all the same. ignored: nobody looks at captions, and all images have the empty one.
CAPTIONS = ("needed", "optional", "ignored")
CHUNK = 2**20

# Told how many more bytes were read; may raise to stop.
Tell = Callable[[int], None]


class CorpusRefused(RunRefused):
    """A corpus that cannot be indexed, or is no longer what was indexed; `sentence` is for a person, and `retry` says whether
    it may be over later."""

    def __init__(self, sentence: str, *, retry: bool = False) -> None:
        super().__init__(sentence, field="sources", retry=retry)


@dataclass(frozen=True)
class Status:
    """What is known of a shard without reading it: `size` in bytes, time of last change in nanoseconds."""

    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Seal:
    """A shard as it was: `size` in bytes, time of last change in nanoseconds, hex digest of all its bytes."""

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """An image in a shard: its bytes are the `size` ones from `offset`; `width` and `height` in pixels, as it is shown."""

    member: str
    offset: int
    size: int
    sha256: str
    caption: str
    width: int
    height: int


@dataclass(frozen=True)
class Wanted:
    """Which samples are taken: those whose shorter side has `least_side` pixels or more, by their captions (`CAPTIONS`)."""

    least_side: int = 1
    captions: str = "needed"


@dataclass(frozen=True)
class Problem:
    """Why a member was left out, as a sentence that begins after its name: "has no caption beside it"."""

    member: str
    why: str


class _LeftOut(Exception):
    """Why a sample is left out."""


@contextmanager
def open_shard(path: Path) -> Iterator[BinaryIO]:
    """A shard to read from. Raises CorpusRefused for a link, a device, and whatever else is no plain file."""
    try:
        # Without waiting: a pipe would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        why = {errno.ELOOP: "is a link", errno.ENOENT: "is missing"}.get(error.errno or 0, "cannot be read")
        raise CorpusRefused(f"The shard {path.name} {why}.") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CorpusRefused(f"The shard {path.name} is no plain file.")
        yield file


def read_bytes(path: Path, offset: int, size: int) -> bytes:
    """`size` bytes of a shard from `offset`, fewer where it ends before."""
    with open_shard(path) as file:
        return os.pread(file.fileno(), size, offset)


def status_of(file: BinaryIO) -> Status:
    """Size and time of last change of an open shard."""
    status = os.fstat(file.fileno())
    return Status(status.st_size, status.st_mtime_ns)


def seal(file: BinaryIO, tell: Tell = lambda count: None) -> Seal:
    """Hash an open shard from its beginning."""
    status, digest = status_of(file), hashlib.sha256()
    file.seek(0)
    while chunk := file.read(CHUNK):
        digest.update(chunk)
        tell(len(chunk))
    return Seal(status.size, status.mtime_ns, digest.hexdigest())


def read_samples(name: str, file: BinaryIO, wanted: Wanted | None = None) -> Iterator[Entry | Problem]:
    """Every sample of an open shard of this name in its order, as an entry, or as the problem for which it is left out: among them
    what is not wanted. Images are decoded whole, so that training meets no broken one.

    Memory is that of one sample. Raises CorpusRefused where the file is no plain tar file, or is cut off.
    """
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            yield from _samples(tar, file, wanted or Wanted())
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        raise CorpusRefused(f"The shard {name} is no whole, plain tar file: {error}.") from None


def _samples(tar: tarfile.TarFile, file: BinaryIO, wanted: Wanted) -> Iterator[Entry | Problem]:
    endings = IMAGE_ENDINGS if wanted.captions == "ignored" else (*IMAGE_ENDINGS, *CAPTION_ENDINGS)
    name = ""
    members: dict[str, tarfile.TarInfo] = {}
    for member in _members(tar, file):
        stem, ending = _split(member.name)
        if member.isdir() or ending not in endings:
            continue
        if stem != name:
            yield from _finish(members, file, wanted)
            name, members = stem, {}
        if not member.name.isprintable():
            yield Problem(ascii(member.name), "has a name with unprintable characters")
            continue
        if not member.isreg() or member.issparse():
            yield Problem(member.name, "is a link, a device or a file with holes")
            continue
        if ending in members:
            yield Problem(member.name, "is there twice in a row")
            continue
        members[ending] = member
    yield from _finish(members, file, wanted)


def _members(tar: tarfile.TarFile, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Every member up to the zeros that end a tar file. Raises tarfile.ReadError where something else comes first: tarfile
    itself takes a damaged header for the end, and may go back at a negative size."""
    before = -1
    while (member := tar.next()) is not None:
        # A tar file remembers its members, of which there may be millions.
        tar.members.clear()  # type: ignore[attr-defined]
        if tar.offset <= before or member.size < 0:
            raise tarfile.ReadError(f"damaged header before byte {tar.offset}")
        before = tar.offset
        yield member
    file.seek(tar.offset)
    rest = file.read(tarfile.BLOCKSIZE)
    if len(rest) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("cut off before its end")
    while rest:
        if rest.strip(b"\0"):
            raise tarfile.ReadError(f"damaged after byte {tar.offset}")
        rest = file.read(CHUNK)


def _split(path: str) -> tuple[str, str]:
    """("folder/name", "png") of "folder/name.png"."""
    folder, slash, base = path.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _finish(members: dict[str, tarfile.TarInfo], file: BinaryIO, wanted: Wanted) -> Iterator[Entry | Problem]:
    images = [members[ending] for ending in IMAGE_ENDINGS if ending in members]
    if not images:
        for member in members.values():
            # Shards may have files about the whole.
            if member.name.lower().endswith(".txt"):
                yield Problem(member.name, "has no image beside it")
        return
    if len(images) > 1:
        yield Problem(images[1].name, "is a second image of the same name")
        return
    try:
        yield _entry(images[0], members, file, wanted)
    except _LeftOut as why:
        yield Problem(images[0].name, str(why))


def _entry(image: tarfile.TarInfo, members: dict[str, tarfile.TarInfo], file: BinaryIO, wanted: Wanted) -> Entry:
    caption = _caption(members, file, wanted)
    if image.size > MOST_IMAGE_BYTES:
        raise _LeftOut(f"has {image.size / 2**20:.0f} MiB; at most {MOST_IMAGE_BYTES // 2**20} are read")
    content = os.pread(file.fileno(), image.size, image.offset_data)
    width, height = _measure(content)
    if min(width, height) < wanted.least_side:
        raise _LeftOut(f"has {width} × {height} pixels; its shorter side needs {wanted.least_side}")
    digest = hashlib.sha256(content).hexdigest()
    return Entry(image.name, image.offset_data, image.size, digest, caption, width, height)


def _measure(content: bytes) -> tuple[int, int]:
    """Width and height as it is shown, of an image that can be decoded to its end."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise _LeftOut(
                    f"has {image.width} × {image.height} pixels; at most {MOST_PIXELS // 10**6} million are read"
                )
            if image.mode not in MODES:
                raise _LeftOut(f"has the pixel format {image.mode}; 8 bits a channel are read")
            if getattr(image, "n_frames", 1) > 1:
                raise _LeftOut("is an animation")
            orientation = orientation_of(image)
            image.load()
            return upright_size(image.size, orientation)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        raise _LeftOut("cannot be decoded as PNG, JPEG or WebP") from None


def _caption(members: dict[str, tarfile.TarInfo], file: BinaryIO, wanted: Wanted) -> str:
    found = [members[ending] for ending in CAPTION_ENDINGS if ending in members]
    caption = next(filter(None, (_caption_of(member, file) for member in found)), "")
    if not caption and wanted.captions == "needed":
        raise _LeftOut("has an empty caption" if found else "has no caption beside it")
    if len(caption) > MOST_CAPTION:
        raise _LeftOut(f"has a caption of {len(caption)} characters; at most {MOST_CAPTION} are read")
    return caption


def _caption_of(member: tarfile.TarInfo, file: BinaryIO) -> str:
    if member.size > MOST_CAPTION_BYTES:
        raise _LeftOut("has a caption file of more than 1 MiB")
    try:
        text = os.pread(file.fileno(), member.size, member.offset_data).decode("utf-8-sig")
        if member.name.lower().endswith(".json"):
            text = _caption_in(json.loads(text))
            text.encode()  # JSON can spell halves of characters.
    except (ValueError, RecursionError):
        raise _LeftOut("has a caption file that is not UTF-8, or not JSON") from None
    if "\0" in text:
        raise _LeftOut("has a caption with a zero byte")
    return " ".join(text.split())


def _caption_in(value: object) -> str:
    """The caption of a sample's JSON, or an empty text where it has none."""
    caption = value.get("caption") if isinstance(value, dict) else None
    if caption is not None and not isinstance(caption, str):
        raise _LeftOut("has a caption that is no text")
    return caption or ""
