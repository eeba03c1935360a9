"""What is installed on this machine, what would be used, and what to do about what is missing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import packages_distributions, version
from pathlib import Path

from repghost_ros.backends.registry import RUNTIMES, choose
from repghost_ros.errors import BackendError, StoreError
from repghost_ros.runs.batch import cores
from repghost_ros.zoo.catalogue import MODELS, archive_url
from repghost_ros.zoo.store import ModelStore

OK, NOTE, PROBLEM = "ok", "note", "problem"
_BOARD = Path("/proc/device-tree/model")
_BOARD_IMAGE = Path("/etc/version")
_ROS_PACKAGES = ("rclpy", "sensor_msgs", "vision_msgs", "diagnostic_msgs", "lifecycle_msgs")
_OPTIONAL = {
    "cv_bridge": "image encodings beyond the common ones: apt install ros-$ROS_DISTRO-cv-bridge",
    "rosbags": "repghost replay and play: pip install rosbags",
    "matplotlib": "plots: pip install matplotlib",
    "onnx": "repghost export and quantize, parameter counts: pip install onnx",
    "yaml": "repghost quantize: pip install pyyaml",
    "torch": "repghost export: pip install torch timm",
    "timm": "repghost export: pip install torch timm",
    "shtab": "repghost completion: pip install shtab",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    status: str
    """`ok`; `note`: fine without it; `problem`: something will not work."""
    detail: str
    advice: str = ""
    """What to do about it."""


def examine() -> list[Finding]:
    """Look at everything; takes a second, changes nothing."""
    return [*_machine(), *_runtimes(), *_ros(), *_store(), *_optional()]


def _machine() -> Iterator[Finding]:
    yield Finding(
        "machine",
        OK,
        f"{platform.machine()}, {cores()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}",
    )
    if _BOARD.is_file():
        board = _BOARD.read_text(errors="replace").strip("\0\n")
        image = _BOARD_IMAGE.read_text(errors="replace").strip() if _BOARD_IMAGE.is_file() else ""
        yield Finding("board", OK, f"{board}, image {image}" if image else board)
    else:
        yield Finding("board", NOTE, "none: models run with ONNX Runtime")
    for module, install in (
        ("numpy", "numpy"),
        ("cv2", "opencv-python-headless"),
        ("tqdm", "tqdm"),
    ):
        yield _import(module, PROBLEM, f"pip install {install}")


def _runtimes() -> Iterator[Finding]:
    for runtime in RUNTIMES:
        on_bpu = runtime.backend == "bpu"
        subject = f"BPU: {runtime.name}" if on_bpu else "onnxruntime"
        reason = runtime.available()
        if reason is None:
            yield Finding(subject, OK, runtime.version() or "usable")
        elif on_bpu:
            yield Finding(subject, NOTE, reason)
        else:
            yield Finding(subject, PROBLEM, "not usable", reason)
    try:
        chosen = choose()
        if chosen.backend == "bpu":
            yield Finding("backend auto", OK, f"bpu, through {chosen.name}: the fastest usable one")
        elif _BOARD.is_file() and "RDK" in _BOARD.read_text(errors="replace"):
            yield Finding(
                "backend auto",
                PROBLEM,
                "onnx, though this is a board: no BPU runtime is usable",
                "install the board's runtime (apt install hobot-dnn), see the lines above",
            )
        else:
            yield Finding("backend auto", OK, "onnx: no BPU runtime is usable here")
    except BackendError as error:
        yield Finding("backend auto", PROBLEM, str(error), "see the lines above")


def _ros() -> Iterator[Finding]:
    distro = os.environ.get("ROS_DISTRO", "")
    missing = [finding for name in _ROS_PACKAGES if (finding := _import(name, NOTE)).status != OK]
    if not missing:
        yield Finding("ROS", OK, distro or "importable; ROS_DISTRO is not set")
    elif distro or len(missing) < len(_ROS_PACKAGES):
        names = " ".join(finding.subject.replace("_", "-") for finding in missing)
        yield Finding(
            "ROS",
            PROBLEM,
            f"{distro or 'some distribution'}, without {names}",
            f"apt install {' '.join(f'ros-$ROS_DISTRO-{name}' for name in names.split())}",
        )
    else:
        yield Finding(
            "ROS",
            NOTE,
            "not here: the node needs it, this command does not",
            "source /opt/ros/$ROS_DISTRO/setup.bash",
        )
    profile = os.environ.get("FASTRTPS_DEFAULT_PROFILES_FILE") or os.environ.get(
        "FASTDDS_DEFAULT_PROFILES_FILE"
    )
    if profile and not Path(profile).is_file():
        yield Finding(
            "Fast DDS profile", PROBLEM, f"'{profile}' does not exist", "correct the path"
        )
    elif profile:
        yield Finding("Fast DDS profile", OK, profile)
    else:
        yield Finding(
            "Fast DDS profile",
            NOTE,
            "none: images above 512 KB may be lost on one machine",
            "FASTRTPS_DEFAULT_PROFILES_FILE=.../repghost_ros/config/fastdds_images.xml",
        )


def _store() -> Iterator[Finding]:
    store = ModelStore()
    writable = next(p for p in (store.root, *store.root.parents) if p.exists())
    if not (writable.is_dir() and os.access(writable, os.W_OK)):
        yield Finding(
            "store", PROBLEM, f"'{store.root}' cannot be written", "set REPGHOST_HOME elsewhere"
        )
    else:
        free = shutil.disk_usage(writable).free
        yield Finding(
            "store",
            OK,
            f"{store.root}, {len(store.entries())} models, {free / 1e9:.1f} GB free; "
            f"archive {archive_url()}",
        )
    for name in MODELS:
        for format in ("bin", "onnx"):
            try:
                store.check(name, format)
            except (StoreError, OSError) as error:
                yield Finding(f"model {name}", PROBLEM, str(error), "see the message")


def _optional() -> Iterator[Finding]:
    for module, use in _OPTIONAL.items():
        yield _import(module, NOTE, f"for {use}")
    mapper = shutil.which("hb_mapper")
    yield Finding(
        "hb_mapper",
        OK if mapper else NOTE,
        mapper or "not on PATH",
        "" if mapper else "for compiling .bin models: the vendor's toolchain image, on a PC",
    )


def _import(module: str, otherwise: str, advice: str = "") -> Finding:
    try:
        imported = import_module(module)
    except Exception as error:  # broken installations raise anything
        return Finding(module, otherwise, f"not importable: {error}", advice)
    return Finding(
        module, OK, _version(module) or str(getattr(imported, "__version__", "installed"))
    )


def _version(module: str) -> str:
    """Of the installed distribution that has this module, or empty."""
    distributions = packages_distributions().get(module, [])
    return ", ".join(version(name) for name in distributions)
