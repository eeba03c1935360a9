# SPDX-License-Identifier: Apache-2.0
"""Protocol buffers' wire format, as far as needed to read model files without a schema."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

Value = int | memoryview
"""A field's: a number, or the bytes of a message, a text, a packed list, or a fixed-size number."""


def mapped(path: Path) -> memoryview:
    """Return a file's content, memory-mapped, so that only the parts used are read.

    Raises:
        OSError: it cannot be read.
        ValueError: it is empty.

    """
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield number and value of each field of a message.

    Raises:
        ValueError: this is not a message, or it is truncated.

    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            number, position = _varint(message, position)
            yield key >> 3, number
            continue
        if kind == 2:
            size, position = _varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"no protobuf: field of kind {kind}")
        if position + size > len(message):
            raise ValueError(f"cut short: {position + size - len(message)} bytes are missing")
        yield key >> 3, message[position : position + size]
        position += size


def numbers(packed: memoryview) -> list[int]:
    """Return a packed list of numbers.

    Raises:
        ValueError: this is not a packed list.

    """
    values, position = [], 0
    while position < len(packed):
        value, position = _varint(packed, position)
        values.append(value)
    return values


def message(value: Value) -> memoryview:
    """Return a field's value as bytes.

    Raises:
        ValueError: it is a number.

    """
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def text(value: Value) -> str:
    """Return a field's value as text.

    Raises:
        ValueError: it is not text.

    """
    return bytes(message(value)).decode()


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position == len(data):
            raise ValueError("cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("no protobuf: a number of more than ten bytes")
