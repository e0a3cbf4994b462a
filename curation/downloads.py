"""A frozen version as a file: JSON lines, or a ZIP with the images, made while it is sent."""

import io
import json
import zipfile
from collections.abc import Iterator

from curation.manifests import frozen_entries, manifest_rows, read_manifest
from curation.models import DatasetVersion
from generation.images import open_image

# A fixed date, so that the same version gives the same bytes.
LONG_AGO = (1980, 1, 1, 0, 0, 0)


class _Tray(io.RawIOBase):
    """A file that only takes: what was written waits until it is sent."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        part = bytes(content)  # type: ignore[call-overload]
        self._parts.append(part)
        return len(part)

    def take(self) -> bytes:
        content = b"".join(self._parts)
        self._parts.clear()
        return content


def jsonl(version: DatasetVersion) -> Iterator[bytes]:
    """One line for each entry, as in the manifest."""
    for row in manifest_rows(version):
        yield json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def archive(version: DatasetVersion) -> Iterator[bytes]:
    """A ZIP with `manifest.json`, `metadata.jsonl` (file_name, text, bucket: the layout of an image folder) and `images/`.

    Raises FileNotFoundError where an image is missing: a broken download is better than an incomplete one.
    """
    tray = _Tray()
    with zipfile.ZipFile(tray, "w") as file:
        _put(file, "manifest.json", read_manifest(version.content_hash), zipfile.ZIP_DEFLATED)
        lines = []
        packed: set[str] = set()
        for entry in frozen_entries(version):
            name = f"images/{entry.image}.png"
            lines.append(json.dumps({"file_name": name, "text": entry.caption, "bucket": entry.bucket}))
            if entry.image in packed:
                continue
            packed.add(entry.image)
            with open_image(entry.image) as image:
                _put(file, name, image.read(), zipfile.ZIP_STORED)
            yield tray.take()
        _put(file, "metadata.jsonl", ("\n".join(lines) + "\n").encode(), zipfile.ZIP_DEFLATED)
    yield tray.take()


def _put(file: zipfile.ZipFile, name: str, content: bytes, compression: int) -> None:
    info = zipfile.ZipInfo(name, LONG_AGO)
    info.external_attr = 0o644 << 16
    file.writestr(info, content, compress_type=compression)


def manifest(version: DatasetVersion) -> Iterator[bytes]:
    """The stored manifest, byte for byte."""
    yield read_manifest(version.content_hash)
