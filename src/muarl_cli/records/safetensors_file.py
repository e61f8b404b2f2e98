"""What a file claims to hold, before anything loads it: safetensors headers, and the refusal of pickles.

Invariant: nothing here ever executes or unpickles content; a file passes only if its header is small, well formed, and
its tensors tile the rest of the file without gap or overlap.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records import strict_json

MAX_HEADER_BYTES = 100_000_000
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".dill"})
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


def is_pickle(path: Path) -> bool:
    """Whether a file's name says that loading it may run code."""
    return path.suffix.lower() in PICKLES


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file and the offset at which its data starts; raises `MuarlError` (BAD_DATA)."""
    try:
        return _read(path)
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise MuarlError(
            f"{path.name} is no intact safetensors file",
            where=str(path),
            why=str(error)[:200],
            next_step="use an intact copy; weights in any other format are not read",
            code=ExitCode.BAD_DATA,
        ) from error


def _read(path: Path) -> tuple[dict[str, Any], int]:
    size = os.path.getsize(path)
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"its header claims {length} bytes, the file has {size}")
        header = strict_json.loads(file.read(length), MAX_HEADER_BYTES)
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    header.pop("__metadata__", None)
    at = 0
    for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = tensor["data_offsets"]
        count = 1
        for extent in tensor["shape"]:
            count *= extent
        bits = _BITS.get(tensor["dtype"])
        if bits is None:
            raise ValueError(f"tensor {name[:60]!r} has the unknown type {str(tensor['dtype'])[:20]!r}")
        if start != at or (count * bits + 7) // 8 != end - start:
            raise ValueError(f"tensor {name[:60]!r} overlaps, leaves a gap, or has the wrong size")
        at = end
    if 8 + length + at != size:
        raise ValueError(f"its tensors end at {8 + length + at}, the file at {size}")
    return header, 8 + length
