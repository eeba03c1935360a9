# SPDX-License-Identifier: Apache-2.0
"""Take and publish serialized messages through rcl's C interface, without Python's lock.

rclpy holds the lock while it copies a message twice, and while DDS sends one. It has loaded rcl
already. The functions and structures below are the same from Humble to Kilted.
"""

from __future__ import annotations

import ctypes
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_char,
    c_char_p,
    c_int,
    c_size_t,
    c_uint8,
    c_void_p,
    cast,
)
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy

_TAKE_FAILED = 401  # RCL_RET_SUBSCRIPTION_TAKE_FAILED: there was no message


class _Allocator(Structure):
    """rcutils_allocator_t: four functions and their state."""

    _fields_ = (("functions", c_void_p * 4), ("state", c_void_p))


class _SerializedMessage(Structure):
    """rcl_serialized_message_t: rcl lets its memory grow."""

    _fields_ = (
        ("buffer", c_void_p),
        ("buffer_length", c_size_t),
        ("buffer_capacity", c_size_t),
        ("allocator", _Allocator),
    )


class _ErrorString(Structure):
    """rcutils_error_string_t."""

    _fields_ = (("str", c_char * 1024),)


_rcl = ctypes.CDLL("librcl.so")
_rcutils = ctypes.CDLL("librcutils.so")
_take = _rcl.rcl_take_serialized_message
_take.argtypes = (c_void_p, POINTER(_SerializedMessage), c_void_p, c_void_p)
_take.restype = c_int
_publish = _rcl.rcl_publish_serialized_message
_publish.argtypes = (c_void_p, POINTER(_SerializedMessage), c_void_p)
_publish.restype = c_int
_free = _rcutils.rcutils_uint8_array_fini
_free.argtypes = (POINTER(_SerializedMessage),)
_rcutils.rcutils_get_default_allocator.restype = _Allocator
_rcutils.rcutils_get_error_string.restype = _ErrorString


def _check(status: int, what: str) -> None:
    if status:
        reason = _rcutils.rcutils_get_error_string().str.decode(errors="replace")
        _rcutils.rcutils_reset_error()
        raise _rclpy.RCLError(f"{what}: {reason}")


class _Memory:
    """Reusable memory into which messages are taken."""

    def __init__(self) -> None:
        self.message = _SerializedMessage(allocator=_rcutils.rcutils_get_default_allocator())
        self.reference = byref(self.message)
        self._whole: type[ctypes.Array[c_uint8]] = c_uint8 * 0

    def view(self, loan: _Loan) -> memoryview:
        """The message; the loan lasts as long as a view of it exists."""
        capacity = self.message.buffer_capacity
        if self._whole._length_ != capacity:
            self._whole = c_uint8 * capacity
        whole: Any = self._whole.from_address(self.message.buffer)
        whole.loan = loan
        return memoryview(whole).cast("B")[: self.message.buffer_length]

    def __del__(self, free: Any = _free) -> None:
        free(self.reference)


class _Loan:
    """Returns its memory to the idle list once nothing refers to it."""

    __slots__ = ("_idle", "_memory")

    def __init__(self, memory: _Memory, idle: list[_Memory]) -> None:
        self._memory = memory
        self._idle = idle

    def __del__(self) -> None:
        self._idle.append(self._memory)


class Taker:
    """Takes a subscription's messages, still serialized, into reused memory.

    Args:
        subscription: rclpy's; the caller destroys it.

    """

    def __init__(self, subscription: Any) -> None:
        self._handle = subscription.handle
        self._idle: list[_Memory] = []

    def take(self) -> memoryview | None:
        """The next message, or None. Its memory is valid as long as a view of it exists.

        Raises:
            RCLError: the middleware failed.

        """
        memory = self._idle.pop() if self._idle else _Memory()
        with self._handle:
            status = _take(self._handle.pointer, memory.reference, None, None)
        if status == _TAKE_FAILED:
            self._idle.append(memory)
            return None
        _check(status, "a message cannot be taken")
        return memory.view(_Loan(memory, self._idle))


def publish(publisher: Any, message: Any) -> None:
    """Send a message, or the bytes of one in CDR, if the lifecycle publisher is activated.

    Raises:
        RCLError: the middleware failed.

    """
    if not isinstance(message, bytes):
        publisher.publish(message)
    elif publisher.is_activated:
        size = len(message)
        serialized = _SerializedMessage(cast(c_char_p(message), c_void_p), size, size)
        with publisher.handle:
            status = _publish(publisher.handle.pointer, byref(serialized), None)
        _check(status, "a message cannot be published")
