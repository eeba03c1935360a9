# SPDX-License-Identifier: Apache-2.0
"""Model files laid out as the vendor's compiler writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

SETTINGS = {
    "MODEL_PREFIX": "m",
    "MARCH": "bayes-e",
    "INPUT_TYPE_RT": "nv12;",
    "INPUT_SPACE_AND_RANGE": "regular;",
    "MEAN_VALUE": "123.675,116.28,103.53,;",
}


def varint(number: int) -> bytes:
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(name: str, *shape: int) -> bytes:
    dimensions = b"".join(map(varint, shape))
    return field(1, name) + field(2, field(1, 3) + field(2, dimensions))


def graph(
    name: str,
    *,
    kind: int = 7,
    batch: int = 1,
    output: str = "output",
    operators: Sequence[str] = ("BPU", "Dequantize"),
) -> bytes:
    image, logits = tensor("data", batch, 224, 224, 3), tensor(output, batch, 1000)
    nodes = b"".join(field(1, field(3, f"n{i}") + field(4, op)) for i, op in enumerate(operators))
    program = field(3, field(5, b"#B2Ehbm#" + b"\x12\x34" * 4996) + field(8, "PACKED_HBM_MODEL"))
    ports = field(4, image) + field(5, logits) + field(7, bytes([kind]))
    return nodes + field(2, name) + program + ports


def settings(**changed: str) -> bytes:
    entries = {**SETTINGS, **changed}
    return b"".join(field(1, field(1, key) + field(2, value)) for key, value in entries.items())


def compiled(
    path: Path,
    *,
    kind: int = 7,
    batch: int = 1,
    output: str = "output",
    operators: Sequence[str] = ("BPU", "Dequantize"),
    **changed: str,
) -> Path:
    """Write a file as hb_mapper lays it out."""
    only = graph("m", kind=kind, batch=batch, output=output, operators=operators)
    content = field(1, 1) + field(2, 1) + field(5, only)
    path.write_bytes(content + field(6, settings(**changed)))
    return path
