# SPDX-License-Identifier: Apache-2.0
"""Serialized images read in place, against what rclpy writes and reads."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repghost_ros.engine.results import Result
from repghost_ros.errors import FrameError
from repghost_ros.vision.cdr import Serialized

pytest.importorskip("rclpy")
from array import array

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image

from repghost_ros.ros import messages

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


def image(frame_id: str, encoding: str, data: bytes) -> Image:
    message = Image(height=3, width=5, encoding=encoding, is_bigendian=1, step=7)
    message.header.frame_id = frame_id
    message.header.stamp.sec, message.header.stamp.nanosec = -5, 999_999_999
    message.data = array("B", data)
    return message


def to_big_endian(message: Image) -> bytes:
    """Serialize the same message as a machine of the other byte order does."""
    out = bytearray(b"\0\0\0\0")

    def number(format: str, value: int) -> None:
        out.extend(bytes(-(len(out) - 4) % struct.calcsize(format)))
        out.extend(struct.pack(">" + format, value))

    def text(value: str) -> None:
        encoded = value.encode() + b"\0"
        number("I", len(encoded))
        out.extend(encoded)

    number("i", message.header.stamp.sec)
    number("I", message.header.stamp.nanosec)
    text(message.header.frame_id)
    number("I", message.height)
    number("I", message.width)
    text(message.encoding)
    number("B", message.is_bigendian)
    number("I", message.step)
    number("I", len(message.data))
    return bytes(out + bytes(message.data))


def assert_same(read: Any, message: Any) -> None:
    for name in ("height", "width", "encoding", "is_bigendian", "step", "format"):
        assert getattr(read, name, None) == getattr(message, name, None)
    assert bytes(read.data) == bytes(message.data)
    assert read.header.frame_id == message.header.frame_id
    assert read.header.stamp == (message.header.stamp.sec, message.header.stamp.nanosec)


@given(TEXTS, TEXTS, st.binary(max_size=64))
def test_reads_what_rclpy_writes(frame_id: str, encoding: str, data: bytes) -> None:
    message = image(frame_id, encoding, data)
    for raw in (serialize_message(message), to_big_endian(message)):
        assert_same(Serialized(raw, compressed=False).message, message)
    packed = CompressedImage(header=message.header, format=encoding, data=array("B", data))
    assert_same(Serialized(serialize_message(packed), compressed=True).message, packed)


def test_data_are_not_copied() -> None:
    raw = serialize_message(image("camera", "mono8", bytes(range(15))))
    data = np.frombuffer(Serialized(raw, compressed=False).message.data, np.uint8)
    assert data.__array_interface__["data"][0] > np.frombuffer(raw, np.uint8).ctypes.data


@given(TEXTS, st.lists(st.tuples(TEXTS, st.floats(0, 1)), max_size=6))
@pytest.mark.parametrize("swapped", [False, True])
def test_answers_are_what_rclpy_would_write(
    swapped: bool, frame_id: str, pairs: list[tuple[str, float]]
) -> None:
    sent = image(frame_id, "mono8", b"")
    raw = to_big_endian(sent) if swapped else serialize_message(sent)
    results = [Result(name, score) for name, score in pairs]
    made = messages.serialized_classification(Serialized(raw, compressed=False), results)
    expected = messages.classification(sent.header, results)
    assert deserialize_message(made, messages.Classification) == expected
    # Between the fields rclpy leaves whatever was there before, and it may pad the end.
    written = serialize_message(expected)
    assert len(made) <= len(written) < len(made) + 4
    assert all(ours in (theirs, 0) for ours, theirs in zip(made, written))


@pytest.mark.parametrize("compressed", [False, True])
def test_every_truncation_is_refused(compressed: bool) -> None:
    whole = image("camera", "mono8", bytes(15))
    packed = CompressedImage(header=whole.header, format="jpeg", data=whole.data)
    raw = serialize_message(packed if compressed else whole)
    end = len(raw) - raw[::-1].index(b"\0" * 15)  # rclpy may pad behind the data
    for length in range(end - 1):
        with pytest.raises(FrameError):
            _ = Serialized(raw[:length], compressed=compressed).message


@given(st.binary(max_size=80), st.booleans())
def test_noise_is_read_or_refused(noise: bytes, compressed: bool) -> None:
    for raw in (noise, b"\0\1\0\0" + noise, b"\0\0\0\0" + noise):
        try:
            _ = Serialized(raw, compressed=compressed).message
        except FrameError:
            continue
