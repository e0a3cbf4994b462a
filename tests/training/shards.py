"""Images and tar shards for tests."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image


def picture(number: int, size: tuple[int, int] = (48, 36), kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (53 * number % 256, 90, 17 * number % 256)).save(buffer, kind, **options)
    return buffer.getvalue()


def write_shard(path: Path, files: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_corpus(folder: Path, shards: int = 2, images: int = 4) -> Path:
    """A folder of shards, each of so many small images with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        files = {}
        for number in range(images * shard, images * (shard + 1)):
            files[f"{number:04}.png"] = picture(number)
            files[f"{number:04}.txt"] = f"a corpus cat {number}".encode()
        write_shard(folder / f"{shard:05}.tar", files)
    return folder
