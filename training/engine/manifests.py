"""Manifests: the images and captions of a source, as a frozen dataset version lists them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from training.engine.places import Place, read_bytes
from training.engine.recipe import RunRefused

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Item:
    """One image with its caption; `sha256` is the hex digest of the image file.

    Of a pair it is the preferred image; `rejected` is the other one, with the hex digest of its file. Of a corpus `image`
    is the shard, in which the image is the `size` bytes from `offset`, under the name `member`, and `width` and `height` are
    known.
    """

    image: Place
    caption: str
    sha256: str
    rejected: Path | None = None
    rejected_sha256: str = ""
    member: str = ""
    offset: int = 0
    size: int = 0
    width: int = 0
    height: int = 0

    @property
    def name(self) -> str:
        """What a person finds the image by."""
        return f"{self.member} in {self.image.name}" if self.member else self.image.name

    def read(self) -> bytes:
        """The image file's bytes. Raises OSError or RunRefused where it cannot be read."""
        if isinstance(self.image, Path) and not self.member:
            return self.image.read_bytes()
        return read_bytes(self.image, self.offset, self.size)

    @property
    def is_far(self) -> bool:
        """Whether each read of it waits for another machine."""
        return not isinstance(self.image, Path)

    @property
    def loser(self) -> "Item":
        """The pair's rejected image as an item of its own. Raises ValueError for an item that is no pair."""
        if self.rejected is None:
            raise ValueError("An item that is no pair has no rejected image.")
        return Item(self.rejected, self.caption, self.rejected_sha256)


def read_manifest(path: Path, *, pairs: bool = False, prompt_free: bool = False) -> list[Item]:
    """The items of a manifest (JSON lines, or one JSON list), in its order; with `pairs` each must have a rejected image,
    and `prompt_free` gives all the empty caption.

    Keys other than image, caption and sha256 are ignored, for `pairs` also but rejected and rejected_sha256. Raises
    `RunRefused`, naming the line, for anything that is not an item, and for a manifest without items.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise RunRefused(f"The manifest {path.name} cannot be read.", field="sources") from None
    items = [_item(path, number, value, pairs) for number, value in _values(path, text)]
    if not items:
        raise RunRefused(f"The manifest {path.name} lists no image.", field="sources")
    return [replace(item, caption="") for item in items] if prompt_free else items


def _values(path: Path, text: str) -> Iterator[tuple[int, object]]:
    try:
        if text.lstrip().startswith("["):
            yield from enumerate(json.loads(text), start=1)
            return
        # Captions may have other characters that end a line elsewhere.
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, json.loads(line)
    except ValueError:
        raise RunRefused(f"The manifest {path.name} is not JSON.", field="sources") from None


def _item(path: Path, number: int, value: object, is_pair: bool) -> Item:
    if not isinstance(value, dict):
        raise RunRefused(f"Entry {number} of the manifest {path.name} is not a JSON object.", field="sources")
    image, caption, digest = value.get("image"), value.get("caption"), value.get("sha256")
    if not isinstance(image, str) or not isinstance(caption, str) or not isinstance(digest, str):
        raise RunRefused(f"Entry {number} of {path.name} needs image, caption and sha256.", field="sources")
    if not SHA256.fullmatch(digest):
        raise RunRefused(f"Entry {number} of {path.name} has no valid sha256.", field="sources")
    if not is_pair:
        return Item(path.parent / image, caption, digest)
    rejected, rejected_digest = value.get("rejected"), value.get("rejected_sha256")
    if not isinstance(rejected, str) or not isinstance(rejected_digest, str) or not SHA256.fullmatch(rejected_digest):
        raise RunRefused(
            f"Entry {number} of {path.name} is no pair: it needs rejected and rejected_sha256.", field="sources"
        )
    return Item(path.parent / image, caption, digest, path.parent / rejected, rejected_digest)
