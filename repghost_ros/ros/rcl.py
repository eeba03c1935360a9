# SPDX-License-Identifier: Apache-2.0
"""Take and publish serialized messages through rcl's C interface, without Python's lock.

rclpy holds the lock while it copies a message twice, and while DDS sends one. It has loaded rcl
already. The functions and structures below are the same from Humble to Kilted.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import ExitStack
from ctypes import (
    POINTER,
    Structure,
    addressof,
    byref,
    c_char,
    c_char_p,
    c_int,
    c_int64,
    c_size_t,
    c_uint8,
    c_void_p,
    cast,
)
from typing import Any

from rclpy.context import Context
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy

import repghost_ros.native as native
from repghost_ros.engine.model import Answered
from repghost_ros.engine.pipeline import NOBODY, Bell

_TIMEOUT, _TAKE_FAILED = 2, 401  # RCL_RET_TIMEOUT, RCL_RET_SUBSCRIPTION_TAKE_FAILED: no message
_NOTHING, _FAILED = -1, -2  # as in native/receive.c
_NOT_MADE = -1  # as in native/publish.c


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


class _WaitSetStart(Structure):
    """The first fields of rcl_wait_set_t."""

    _fields_ = (
        ("subscriptions", POINTER(c_void_p)),
        ("subscription_count", c_size_t),
        ("guard_conditions", POINTER(c_void_p)),
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
_publish_function = cast(_publish, c_void_p)
_WAITING = {
    "wait": _rcl.rcl_wait,
    "clear": _rcl.rcl_wait_set_clear,
    "add_subscription": _rcl.rcl_wait_set_add_subscription,
    "add_guard": _rcl.rcl_wait_set_add_guard_condition,
    "take": _take,
}
_rcl.rcl_wait.argtypes = (c_void_p, c_int64)
_rcl.rcl_wait_set_clear.argtypes = (c_void_p,)
_rcl.rcl_wait_set_add_subscription.argtypes = (c_void_p, c_void_p, c_void_p)
_rcl.rcl_wait_set_add_guard_condition.argtypes = (c_void_p, c_void_p, c_void_p)
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

    def view(self, loan: Taken) -> memoryview:
        """Return the message; the loan lasts as long as a view of it exists."""
        capacity = self.message.buffer_capacity
        if self._whole._length_ != capacity:
            self._whole = c_uint8 * capacity
        whole: Any = self._whole.from_address(self.message.buffer)
        whole.loan = loan
        return memoryview(whole).cast("B")[: self.message.buffer_length]

    def __del__(self, free: Any = _free) -> None:
        free(self.reference)


class Taken:
    """A message in memory that returns to the idle list once nothing refers to it."""

    __slots__ = ("_idle", "_memory", "address", "size")

    def __init__(self, memory: _Memory, idle: list[_Memory]) -> None:
        self._memory = memory
        self._idle = idle
        self.address: int = memory.message.buffer
        self.size: int = memory.message.buffer_length

    def view(self) -> memoryview:
        """Its bytes; the memory lasts as long as a view of it exists."""
        return self._memory.view(self)

    def __del__(self) -> None:
        self._idle.append(self._memory)


class MessageTaker:
    """Takes the messages of subscriptions as they arrive, still serialized, into reused memory.

    Each call asks the subscription after the one that had the last message first. The compiled helper
    does all of it without Python's lock.

    Args:
        context: of the node.

    """

    def __init__(self, context: Context) -> None:
        self._context: Any = context
        self._guard: Any = GuardCondition(None, None, context)
        self._idle: list[_Memory] = []
        self._followed: Sequence[Any] = ()
        self._used = ExitStack()
        self._set: Any = None
        self._state = native.Receiver()
        self._woken = NOBODY
        helper = native.library()
        self._receive = self._receive_in_python if helper is None else helper.repghost_receive

    def wake(self) -> None:
        """Make `receive` return, from any thread."""
        self._guard.trigger()

    def receive(
        self, subscriptions: Sequence[Any], seconds: float, bell: Bell
    ) -> tuple[int, Taken] | None:
        """Return a subscription's index and its next message, or None after `wake` or the given time.

        Args:
            subscriptions: rclpy's. They stay in use until others are given.
            seconds: how long to wait, if nothing has arrived.
            bell: is rung first; by the compiled helper without Python's lock.

        Raises:
            RCLError: the middleware failed.

        """
        if subscriptions != self._followed:
            self._follow(subscriptions)
        # Kept here, so that its descriptor stays open until C has written to it.
        self._woken = bell.take()
        self._state.wake = self._woken.descriptor
        memory = self._idle.pop() if self._idle else _Memory()
        index = self._receive(self._reference, memory.reference, int(seconds * 1e9))
        if index >= 0:
            return index, Taken(memory, self._idle)
        self._idle.append(memory)
        if index == _FAILED:
            _check(self._state.status, "a message cannot be taken")
        return None

    def _follow(self, subscriptions: Sequence[Any]) -> None:
        self.release()
        self._followed = subscriptions
        self._set = _rclpy.WaitSet(len(subscriptions), 1, 0, 0, 0, 0, self._context.handle)
        handles = [subscription.handle for subscription in subscriptions]
        for handle in (self._context.handle, self._guard.handle, self._set, *handles):
            self._used.enter_context(handle)
        self._pointers = (c_void_p * len(handles))(*(handle.pointer for handle in handles))
        self._state = native.Receiver(
            **{name: cast(function, c_void_p) for name, function in _WAITING.items()},
            set=self._set.pointer,
            guard=self._guard.handle.pointer,
            subscriptions=addressof(self._pointers),
            count=len(handles),
        )
        self._reference = byref(self._state)

    def _receive_in_python(self, _: Any, message: Any, nanoseconds: int) -> int:
        """Do what native/receive.c does."""
        self._woken.wake()
        taken = self._take(message)
        if taken != _NOTHING:
            return taken
        state, waiting = self._state, _WAITING
        state.status = (
            waiting["clear"](state.set)
            or any(
                waiting["add_subscription"](state.set, pointer, None) for pointer in self._pointers
            )
            or waiting["add_guard"](state.set, state.guard, None)
        )
        if state.status:
            return _FAILED
        state.status = waiting["wait"](state.set, nanoseconds)
        if state.status:
            return _NOTHING if state.status == _TIMEOUT else _FAILED
        state.unasked = state.count
        woken = _WaitSetStart.from_address(state.set).guard_conditions[0]
        return _NOTHING if woken else self._take(message)

    def _take(self, message: Any) -> int:
        state = self._state
        while state.unasked > 0:
            asked = state.turn
            state.turn = (asked + 1) % state.count
            state.status = _take(self._pointers[asked], message, None, None)
            if not state.status:
                state.unasked = state.count
                return int(asked)
            if state.status != _TAKE_FAILED:
                return _FAILED
            state.unasked -= 1
        return _NOTHING

    def release(self) -> None:
        """Let go of the subscriptions, which can be destroyed then."""
        self._followed = ()
        self._used.close()
        self._set = None

    def close(self) -> None:
        """Release its middleware resources."""
        self.release()
        self._guard.destroy()


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


class BestPublisher:
    """Sends classifications by the compiled helper.

    Args:
        publisher: the lifecycle publisher.

    """

    def __init__(self, publisher: Any) -> None:
        self._publisher = publisher
        self._helper = native.library()
        self._handle = publisher.handle
        self._pointer = self._handle.pointer
        self._names: Sequence[str] = ()
        self._labels: Any = None
        """A reference to these in C."""

    def publish(self, answered: Answered[Any]) -> bool:
        """Send the classification of a serialized image, if the publisher is activated.

        Returns:
            False where the message has to be made in Python.

        Raises:
            RCLError: the middleware failed.
            InvalidHandle: the publisher was destroyed.

        """
        request, best = answered.request, answered.best
        memory = request.message.memory
        if self._helper is None or memory is None or not isinstance(best, native.Best):
            return False
        if not self._publisher.is_activated:
            return True
        if answered.model.labels is not self._names:
            self._names = answered.model.labels
            self._labels = byref(native.Labels(self._names))
        with self._handle:
            status = self._helper.repghost_publish(
                _publish_function,
                self._pointer,
                memory.address,
                memory.size,
                byref(best),
                self._labels if request.reporting.class_id == "label" else None,
            )
        if status == _NOT_MADE:
            return False
        if status:
            _check(status, "a message cannot be published")
        return True
