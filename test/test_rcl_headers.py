# SPDX-License-Identifier: Apache-2.0
"""Declarations of rcl in ros/rcl.py and the helper, against the installed distribution's headers."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from repghost_ros.ros import rcl

NATIVE = Path(__file__).parent.parent / "repghost_ros" / "native"
SOURCES = "".join(file.read_text() for file in sorted(NATIVE.glob("*.[ch]")))
STRUCTURES: dict[str, Any] = {
    "rcutils_allocator_t": rcl._Allocator,
    "rcl_serialized_message_t": rcl._SerializedMessage,
    "rcutils_error_string_t": rcl._ErrorString,
}
"""Those that are as large as the real ones."""
FIELDS: dict[str, dict[str, str]] = {
    "rcl_serialized_message_t": {
        name: name for name in ("buffer", "buffer_length", "buffer_capacity", "allocator")
    },
    "rcutils_allocator_t": {"allocate": "functions", "state": "state"},
    "rcl_wait_set_t": {
        "subscriptions": "subscriptions",
        "size_of_subscriptions": "subscription_count",
        "guard_conditions": "guard_conditions",
    },
    "rcutils_error_string_t": {"str": "str"},
}
"""Of the header's structures: their field, and ours."""
OURS = {**STRUCTURES, "rcl_wait_set_t": rcl._WaitSetStart}
CODES = {"RCL_RET_TIMEOUT": "TIMEOUT", "RCL_RET_SUBSCRIPTION_TAKE_FAILED": "TAKE_FAILED"}
FUNCTIONS = """
rcl_ret_t (*take)(const rcl_subscription_t *, rcl_serialized_message_t *, rmw_message_info_t *,
                  rmw_subscription_allocation_t *) = rcl_take_serialized_message;
rcl_ret_t (*publish)(const rcl_publisher_t *, const rcl_serialized_message_t *,
                     rmw_publisher_allocation_t *) = rcl_publish_serialized_message;
rcl_ret_t (*wait_)(rcl_wait_set_t *, int64_t) = rcl_wait;
rcl_ret_t (*clear)(rcl_wait_set_t *) = rcl_wait_set_clear;
rcl_ret_t (*subscription)(rcl_wait_set_t *, const rcl_subscription_t *, size_t *) =
    rcl_wait_set_add_subscription;
rcl_ret_t (*guard)(rcl_wait_set_t *, const rcl_guard_condition_t *, size_t *) =
    rcl_wait_set_add_guard_condition;
rcutils_ret_t (*fini)(rcutils_uint8_array_t *) = rcutils_uint8_array_fini;
rcutils_allocator_t (*allocator)(void) = rcutils_get_default_allocator;
rcutils_error_string_t (*error)(void) = rcutils_get_error_string;
void (*reset)(void) = rcutils_reset_error;
_Static_assert(sizeof(rcl_ret_t) == sizeof(int), "rcl_ret_t");
_Static_assert(__builtin_types_compatible_p(rcl_serialized_message_t, rcutils_uint8_array_t), "");
"""
"""Every function that is called, with the arguments that it is called with."""


def folders() -> Iterator[Path]:
    """Yield the folders of the installed headers."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        include = Path(prefix) / "include"
        yield include  # as on Humble
        yield from (path for path in include.glob("*") if path.is_dir())


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Compile the headers and return sizes, offsets and codes by name."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    if not any((folder / "rcl" / "wait.h").is_file() for folder in folders()):
        pytest.skip("rcl's headers are not installed: they come with a ROS 2 installation")
    asked = {f"sizeof({name})" for name in STRUCTURES} | set(CODES)
    for structure, fields in FIELDS.items():
        asked |= {f"offsetof({structure}, {field})" for field in fields}
    prints = "".join(f'printf("%s=%d\\n", "{each}", (int)({each}));\n' for each in sorted(asked))
    folder = tmp_path_factory.mktemp("rcl")
    (folder / "ask.c").write_text(
        "#include <stddef.h>\n#include <stdio.h>\n"
        "#include <rcl/rcl.h>\n#include <rcutils/error_handling.h>\n"
        f"{FUNCTIONS}\nint main(void) {{\n{prints}}}\n"
    )
    # After the system's: below include/rmw and include/dds there is another features.h.
    options = [f"-idirafter{path}" for path in folders() if path.is_dir()]
    program = folder / "ask.o"
    # Linked against nothing: the functions' types are compared, and the program never calls them.
    flags = ["-std=gnu11", "-Werror", "-Wl,--unresolved-symbols=ignore-all"]
    built = subprocess.run(
        [compiler, *flags, *options, str(folder / "ask.c"), "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    lines = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    return {
        name: int(value)
        for name, _, value in (s.rpartition("=") for s in lines.split("\n"))
        if name
    }


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_is_as_large_as_rcl_s(told: dict[str, int], name: str) -> None:
    assert ctypes.sizeof(STRUCTURES[name]) == told[f"sizeof({name})"]


@pytest.mark.parametrize("name", FIELDS)
def test_fields_lie_where_rcl_has_them(told: dict[str, int], name: str) -> None:
    for theirs, ours in FIELDS[name].items():
        assert getattr(OURS[name], ours).offset == told[f"offsetof({name}, {theirs})"]
    declared = {field[0] for field in OURS[name]._fields_}
    assert declared == set(FIELDS[name].values())


def test_codes_mean_what_rcl_means(told: dict[str, int]) -> None:
    assert told["RCL_RET_TIMEOUT"] == rcl._TIMEOUT
    assert told["RCL_RET_SUBSCRIPTION_TAKE_FAILED"] == rcl._TAKE_FAILED
    for theirs, ours in CODES.items():
        (value,) = re.findall(rf"\b{ours} = (\d+)", SOURCES)
        assert int(value) == told[theirs]


def test_the_helper_s_structures_begin_as_rcl_s(told: dict[str, int]) -> None:
    """Eight bytes a field: pointers and sizes alone."""
    (waits,) = re.findall(r"struct \w*wait_set {(.*?)}", SOURCES, re.DOTALL)
    names = re.findall(r"(\w+);", waits)
    offsets = [told[f"offsetof(rcl_wait_set_t, {each})"] for each in FIELDS["rcl_wait_set_t"]]
    assert names == list(FIELDS["rcl_wait_set_t"].values())
    assert offsets == [0, 8, 16]
    (message,) = re.findall(r"struct serialized {(.*?)}", SOURCES, re.DOTALL)
    assert re.findall(r"\*?(\w+(?:\[\d\])?)[;,]", message) == [
        *("buffer", "length", "capacity"),
        f"allocator[{told['sizeof(rcutils_allocator_t)'] // 8}]",
    ]
    assert told["offsetof(rcl_serialized_message_t, allocator)"] == 24
