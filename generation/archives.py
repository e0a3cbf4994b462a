"""ZIP files that are made while they are sent: of fixed bytes, and never whole in memory."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

# A fixed date, so that the same contents give the same bytes.
LONG_AGO = (1980, 1, 1, 0, 0, 0)
CHUNK_BYTES = 1 << 20


class Tray(io.RawIOBase):
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


def put(file: zipfile.ZipFile, name: str, content: bytes, compression: int) -> None:
    """Add one file that is in memory."""
    file.writestr(_info(name), content, compress_type=compression)


def put_file(file: zipfile.ZipFile, name: str, path: Path, tray: Tray) -> Iterator[bytes]:
    """Add one file from disk, stored as it is. Yields what is to be sent, piece by piece."""
    info = _info(name)
    info.file_size = path.stat().st_size
    with path.open("rb") as source, file.open(info, "w") as target:
        while part := source.read(CHUNK_BYTES):
            target.write(part)
            yield tray.take()


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, LONG_AGO)
    info.external_attr = 0o644 << 16
    return info
