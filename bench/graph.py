# SPDX-License-Identifier: Apache-2.0
"""Build, start and drive the bench's ROS programs in C, see graph.c.

They run in a Python process because only there the ROS 2 wheels find their libraries.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.convert import shape, smooth_jpegs

HERE = Path(__file__).parent
_LIBRARIES = (
    *("rcl", "rmw", "rcutils", "rosidl_runtime_c"),
    *(
        f"{p}_msgs__rosidl_{part}"
        for p in ("sensor", "vision")
        for part in ("typesupport_c", "generator_c")
    ),
)
_RMW = ("rmw_implementation", "rmw_fastrtps_cpp")  # the wheels have the second alone


def build(folder: Path) -> Path:
    """Compile graph.so into a folder, with the headers and libraries of this ROS 2.

    Raises:
        subprocess.CalledProcessError: it cannot be compiled here.
        FileNotFoundError: there is no gcc.

    """
    library = folder / "graph.so"
    prefixes = [Path(prefix) for prefix in os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)]
    headers = [f"-I{h}" for prefix in prefixes for h in sorted((prefix / "include").glob("*/"))]
    found = [n for n in _RMW if any((p / "lib" / f"lib{n}.so").exists() for p in prefixes)]
    command = [
        "gcc",
        "-std=gnu11",
        "-O2",
        "-Wall",
        "-Werror",
        "-shared",
        "-fPIC",
        "-pthread",
        *headers,
    ]
    command += ["-o", str(library), str(HERE / "graph.c"), *(f"-L{p / 'lib'}" for p in prefixes)]
    # What these need in turn is found by rclpy.
    command += ["-Wl,--allow-shlib-undefined", *(f"-l{n}" for n in (*_LIBRARIES, *found[:1]))]
    subprocess.run(command, check=True)
    return library


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """Time that all cores of this machine were busy so far."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Run:
    """The answers to the load at one rate."""

    seconds: float
    sent: int
    answered: int
    p50_ms: float
    """From publication to the answer's arrival."""
    p99_ms: float
    cpu_s: float
    """Of the node's process."""
    busy: float
    """Cores of the machine in use, by whomever."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Of the node's process, for each answer."""
        return self.cpu_s / self.answered * 1e3 if self.answered else float("nan")


class _Images(ctypes.Structure):
    """struct images of graph.c."""

    _fields_ = (
        ("encoding", ctypes.c_char_p),
        *((name, ctypes.c_uint32) for name in ("width", "height", "step")),
        ("data", ctypes.c_char_p),
        ("size", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class Images:
    """The images that a load sends; `jpeg` is sent compressed."""

    encoding: str = "nv12"
    width: int = 224
    height: int = 224

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {self.encoding}"

    @property
    def arguments(self) -> list[str]:
        """What `main` makes it of."""
        return [self.encoding, str(self.width), str(self.height)]

    def first(self) -> tuple[int, bytes]:
        """Return step and data of the first: noise, or a JPEG of a smooth picture with some."""
        if self.encoding == "jpeg":
            (jpeg,) = smooth_jpegs(self.width, self.height, 1)
            return 0, jpeg.tobytes()
        size = shape(self.encoding, self.width, self.height)
        step = int(np.prod(size[1:]))
        return step, np.random.default_rng(0).bytes(size[0] * step)

    def structure(self) -> _Images:
        """Return the first of them for graph.c."""
        step, data = self.first()
        encoding = self.encoding.encode()
        return _Images(encoding, self.width, self.height, step, data, len(data))


SMALL = Images()
"""As large as the model's input."""


class Load:
    """Sends images to a node and takes its answers, from a process of its own."""

    def __init__(self, library: Path, topic: str, pid: int, images: Images = SMALL) -> None:
        self._pid = pid
        command = [sys.executable, "-m", "bench.graph", str(library), *images.arguments]
        self._process = subprocess.Popen(
            [*command, "load", topic],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._expect("ready")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _expect(self, word: str) -> None:
        line = self._line()
        if line != word:
            raise RuntimeError(f"the load said '{line}' instead of '{word}'")

    def run(self, rate: float, seconds: float, warm_up: float = 1.0) -> Run:
        """Send so many images a second, and count after the warm-up."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{rate} {warm_up} {seconds}\n")
        self._process.stdin.flush()
        self._expect("begin")
        start, cpu, busy = time.monotonic(), cpu_seconds(self._pid), busy_seconds()
        self._expect("end")
        elapsed, cpu, busy = (
            time.monotonic() - start,
            cpu_seconds(self._pid) - cpu,
            busy_seconds() - busy,
        )
        sent, answered, p50, p99 = self._line().split()
        return Run(seconds, int(sent), int(answered), float(p50), float(p99), cpu, busy / elapsed)

    def close(self) -> None:
        """Leave the graph."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


@contextmanager
def process(command: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node in a process of its own, interrupted at the end.

    Raises:
        RuntimeError: it did not end cleanly.

    """
    running: subprocess.Popen[bytes] = subprocess.Popen([sys.executable, *command], **options)  # type: ignore[call-overload]
    try:
        yield running
    finally:
        running.send_signal(signal.SIGINT)
        try:
            code = running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            raise
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}")


def main() -> int:
    """`python -m bench.graph LIBRARY ENCODING WIDTH HEIGHT load TOPIC`: for whoever answers on TOPIC.

    `python -m bench.graph LIBRARY ENCODING WIDTH HEIGHT node [LIBDNN MODEL]`: the node; it may infer.
    """
    from rclpy.impl.implementation_singleton import rclpy_implementation  # noqa: F401
    from sensor_msgs.msg import CompressedImage, Image
    from vision_msgs.msg import Classification

    for message_type in (CompressedImage, Image, Classification):  # their libraries
        message_type.__class__.__import_type_support__()
    library = ctypes.CDLL(sys.argv[1])
    library.run.argtypes = (
        *(ctypes.POINTER(_Images), ctypes.c_char_p),
        *(ctypes.c_void_p, ctypes.c_char_p),
    )
    _, _, encoding, width, height, role, *arguments = sys.argv
    images = Images(encoding, int(width), int(height))
    topic = infer = model = None
    if role == "load":
        topic = arguments[0].encode()
    elif arguments:
        infer = ctypes.cast(ctypes.CDLL(arguments[0]).emu_classify, ctypes.c_void_p)
        model = arguments[1].encode()
    code: int = library.run(ctypes.byref(images.structure()), topic, infer, model)
    return code


if __name__ == "__main__":
    sys.exit(main())
