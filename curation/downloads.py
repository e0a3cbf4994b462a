"""A frozen version as a file: JSON lines, or a ZIP with the images, made while it is sent."""

import json
import zipfile
from collections.abc import Iterator

from curation.manifests import frozen_entries, manifest_rows, read_manifest
from curation.models import DatasetVersion
from generation.archives import Tray, put
from generation.images import open_image


def jsonl(version: DatasetVersion) -> Iterator[bytes]:
    """One line for each entry, as in the manifest."""
    for row in manifest_rows(version):
        yield json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def archive(version: DatasetVersion) -> Iterator[bytes]:
    """A ZIP with `manifest.json`, `metadata.jsonl` (file_name, text, bucket: the layout of an image folder) and `images/`.

    A line about a pair has the rejected image too, as rejected_file_name, which that layout reads as a second image.
    Raises FileNotFoundError where an image is missing: a broken download is better than an incomplete one.
    """
    tray = Tray()
    with zipfile.ZipFile(tray, "w") as file:
        put(file, "manifest.json", read_manifest(version.content_hash), zipfile.ZIP_DEFLATED)
        lines = []
        packed: set[str] = set()
        for entry in frozen_entries(version):
            line = {"file_name": _name(entry.image), "text": entry.caption, "bucket": entry.bucket}
            if entry.rejected:
                line["rejected_file_name"] = _name(entry.rejected)
            lines.append(json.dumps(line))
            for sha256 in filter(None, (entry.image, entry.rejected)):
                if sha256 in packed:
                    continue
                packed.add(sha256)
                with open_image(sha256) as image:
                    put(file, _name(sha256), image.read(), zipfile.ZIP_STORED)
                yield tray.take()
        put(file, "metadata.jsonl", ("\n".join(lines) + "\n").encode(), zipfile.ZIP_DEFLATED)
    yield tray.take()


def _name(sha256: str) -> str:
    return f"images/{sha256}.png"


def manifest(version: DatasetVersion) -> Iterator[bytes]:
    """The stored manifest, byte for byte."""
    yield read_manifest(version.content_hash)
