"""The header of a safetensors file: names, types and shapes of its tensors, read without the weights.

Format: 8 bytes little-endian length, that many bytes of JSON, then the data
(https://github.com/huggingface/safetensors, "Format").
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

# The format's own limit, which keeps a hostile file from asking for all memory.
MAX_HEADER_BYTES = 100_000_000
BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip


class HeaderRefused(Exception):
    """A file that is not a whole safetensors file; `reason` completes "... because"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: its type as the format names it ("F16"), its shape, and the bytes of the file that it lies in."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of a file by name. Raises `HeaderRefused` if header, offsets and file size do not fit together."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise HeaderRefused("it is too short")
        (length,) = struct.unpack("<Q", prefix)
        if length > MAX_HEADER_BYTES or length + 8 > size:
            raise HeaderRefused("its header is longer than the file")
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise HeaderRefused("its header is not JSON") from None
    if not isinstance(header, dict):
        raise HeaderRefused("its header is not a JSON object")
    header.pop("__metadata__", None)
    return _checked(header, start=8 + length, size=size)


def _checked(header: dict[str, object], *, start: int, size: int) -> dict[str, TensorInfo]:
    tensors, spans = {}, []
    for name, value in header.items():
        try:
            dtype, shape = str(value["dtype"]), tuple(int(side) for side in value["shape"])  # type: ignore[index]
            begin, end = (int(each) for each in value["data_offsets"])  # type: ignore[index]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise HeaderRefused(f"its tensor {name} is not described") from None
        if dtype not in BYTES or min(shape, default=0) < 0 or end - begin != math.prod(shape) * BYTES[dtype]:
            raise HeaderRefused(f"its tensor {name} has a size that does not fit its shape")
        tensors[name] = TensorInfo(dtype, shape, start + begin, start + end)
        spans.append((begin, end))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise HeaderRefused("its tensors overlap or leave gaps")
        position = end
    if start + position != size:
        raise HeaderRefused("its data is cut off or has a tail")
    return tensors
