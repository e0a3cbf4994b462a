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

    Raises FileNotFoundError where an image is missing: a broken download is better than an incomplete one.
    """
    tray = Tray()
    with zipfile.ZipFile(tray, "w") as file:
        put(file, "manifest.json", read_manifest(version.content_hash), zipfile.ZIP_DEFLATED)
        lines = []
        packed: set[str] = set()
        for entry in frozen_entries(version):
            name = f"images/{entry.image}.png"
            lines.append(json.dumps({"file_name": name, "text": entry.caption, "bucket": entry.bucket}))
            if entry.image in packed:
                continue
            packed.add(entry.image)
            with open_image(entry.image) as image:
                put(file, name, image.read(), zipfile.ZIP_STORED)
            yield tray.take()
        put(file, "metadata.jsonl", ("\n".join(lines) + "\n").encode(), zipfile.ZIP_DEFLATED)
    yield tray.take()


def manifest(version: DatasetVersion) -> Iterator[bytes]:
    """The stored manifest, byte for byte."""
    yield read_manifest(version.content_hash)
