# SPDX-License-Identifier: Apache-2.0
"""Check of this machine: installed software, the runtime to use, commands to install missing parts."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from repghost_ros.backends import libdnn
from repghost_ros.backends.registry import RUNTIMES, choose
from repghost_ros.backends.toolchain import find_toolchain
from repghost_ros.engine.threads import cores
from repghost_ros.errors import BackendError, DependencyError, StoreError
from repghost_ros.paths import share
from repghost_ros.vision import turbojpeg
from repghost_ros.zoo.catalogue import DEFAULT, DEMO, MODELS, check_archive
from repghost_ros.zoo.store import ModelStore

SHARED_MEMORY = Path("/dev/shm")
_PROCESSES = 3  # camera, node and a viewer, each of which reserves a segment
OK, NOTE, PROBLEM = "ok", "note", "problem"
_BOARD = Path("/proc/device-tree/model")
_BOARD_IMAGE = Path("/etc/version")
_ROS_PACKAGES = ("rclpy", "sensor_msgs", "vision_msgs", "diagnostic_msgs", "lifecycle_msgs")
_OPTIONAL = {
    "rosbags": ("repghost replay and play", "rosbags"),
    "matplotlib": ("plots", "matplotlib"),
    "onnx": ("repghost export and quantize, parameter counts", "onnx"),
    "yaml": ("repghost quantize", "pyyaml"),
    "safetensors": ("repghost download of an .onnx that the archive lacks", "safetensors"),
    "torch": ("repghost export", "torch timm"),
    "timm": ("repghost export", "torch timm"),
    "shtab": ("repghost completion", "shtab"),
    "rich": ("the demo's viewer on a terminal", "rich"),
    "PIL": ("labels in any script on annotated pictures", "pillow"),
}
"""Modules, what they are for, and what pip calls them."""
_LEAST_FREE = 100_000_000
"""Bytes; the largest model is a third of that."""


@dataclass(frozen=True)
class Finding:
    """One finding."""

    subject: str
    status: str
    """`ok`; `note`: fine without it; `problem`: something will not work."""
    detail: str
    advice: str = ""
    """What to do about it."""


def examine() -> list[Finding]:
    """Examine everything; takes a second and changes nothing."""
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
        yield _import(module, PROBLEM, pip_install(install))
    yield _jpeg_decoder()
    yield _compiled_helper()


def _jpeg_decoder() -> Finding:
    if turbojpeg.library() is not None:
        return Finding("JPEG decoder", OK, "libturbojpeg")
    return Finding(
        "JPEG decoder",
        NOTE,
        "OpenCV: slower, and some damaged JPEGs go unnoticed",
        turbojpeg.INSTALL,
    )


def _compiled_helper() -> Finding:
    if libdnn.has_helper():
        return Finding("compiled helper", OK, "loaded")
    if os.environ.get("REPGHOST_NATIVE") == "0":
        return Finding("compiled helper", NOTE, "turned off by REPGHOST_NATIVE=0")
    return Finding(
        "compiled helper",
        NOTE,
        "none: Python does its work, and the node takes more processor time on the BPU",
        "install gcc, then install the package again (colcon build, or pip install)",
    )


def _runtimes() -> Iterator[Finding]:
    for runtime in RUNTIMES:
        optional = runtime.backend != "onnx"
        subject = {"bpu": f"BPU: {runtime.name}", "sim": "simulator"}.get(
            runtime.backend, "onnxruntime"
        )
        reason = runtime.available()
        if reason is None:
            yield Finding(subject, OK, runtime.version() or "usable")
        elif optional:
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
                "sudo apt install hobot-dnn",
            )
        else:
            yield Finding("backend auto", OK, "onnx: no BPU runtime is usable here")
    except BackendError as error:
        yield Finding("backend auto", PROBLEM, str(error), pip_install("onnxruntime"))


def _ros() -> Iterator[Finding]:
    distro = os.environ.get("ROS_DISTRO", "")
    missing = [finding for name in _ROS_PACKAGES if (finding := _import(name, NOTE)).status != OK]
    if not missing:
        yield Finding("ROS", OK, distro or "importable; ROS_DISTRO is not set")
    elif distro or len(missing) < len(_ROS_PACKAGES):
        distro = distro or "$ROS_DISTRO"
        names = [f"ros-{distro}-{finding.subject.replace('_', '-')}" for finding in missing]
        yield Finding(
            "ROS",
            PROBLEM,
            f"without {', '.join(finding.subject for finding in missing)}",
            f"sudo apt install {' '.join(names)}",
        )
    else:
        installed = sorted(Path("/opt/ros").glob("*/setup.bash"))
        yield Finding(
            "ROS",
            NOTE,
            "not here: the node needs it, this command does not",
            f"source {installed[-1]}"
            if installed
            else "https://docs.ros.org/en/humble/Installation",
        )
        return  # the rest is about ROS
    cv_bridge = f"sudo apt install ros-{distro or '$ROS_DISTRO'}-cv-bridge"
    yield _import("cv_bridge", NOTE, f"for image encodings beyond the common ones: {cv_bridge}")
    yield _profile()


def _profile() -> Finding:
    """Look at the Fast DDS profile, if Fast DDS is the middleware: it is the default."""
    middleware = os.environ.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp"
    if "fastrtps" not in middleware:
        return Finding("middleware", OK, middleware)
    profile = os.environ.get("FASTRTPS_DEFAULT_PROFILES_FILE") or os.environ.get(
        "FASTDDS_DEFAULT_PROFILES_FILE"
    )
    ours = share() / "config" / "fastdds_images.xml"
    variable = f"export FASTRTPS_DEFAULT_PROFILES_FILE={ours} FASTDDS_DEFAULT_PROFILES_FILE={ours}"
    if profile and not Path(profile).is_file():
        return Finding("Fast DDS profile", PROBLEM, f"'{profile}' does not exist", variable)
    if profile:
        return _shared_memory(Path(profile), variable)
    lost = "none: images above 512 KB may be lost on one machine"
    return Finding("Fast DDS profile", NOTE, lost, variable)


def _shared_memory(profile: Path, variable: str) -> Finding:
    """Check that the segments of a Fast DDS profile fit into this machine's or container's memory."""
    sizes = re.findall(r"<segment_size>\s*(\d+)\s*<", profile.read_text(errors="replace"))
    wanted = max(map(int, sizes), default=0)
    total = shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else 0
    if total >= _PROCESSES * wanted:
        return Finding("Fast DDS profile", OK, str(profile))
    return Finding(
        "Fast DDS profile",
        PROBLEM,
        f"'{profile}' reserves {wanted / 2**20:.0f} MB a process, {SHARED_MEMORY} has "
        f"{total / 2**20:.0f} MB in all: images will be lost",
        f"docker run --shm-size=512m, or {variable}",
    )


def _store() -> Iterator[Finding]:
    store = ModelStore()
    writable = next(p for p in (store.root, *store.root.parents) if p.exists())
    free = shutil.disk_usage(writable).free
    elsewhere = "export REPGHOST_HOME=DIR, a folder that can be written and has room"
    if not (writable.is_dir() and os.access(writable, os.W_OK)):
        yield Finding("store", PROBLEM, f"'{store.root}' cannot be written", elsewhere)
    elif free < _LEAST_FREE:
        full = f"'{store.root}' has {free / 1e6:.0f} MB left, too little for a model"
        yield Finding("store", PROBLEM, full, elsewhere)
    else:
        models = f"{store.root}, {len(store.entries())} models, {free / 1e9:.1f} GB free"
        yield Finding("store", OK, models)
    try:
        check_archive(store.url)
        yield Finding("archive", NOTE, f"{store.url}, not asked: repghost download does so")
    except StoreError as error:
        yield Finding("archive", PROBLEM, str(error), "unset REPGHOST_MODEL_URL")
    for name in MODELS:
        for format in ("bin", "onnx"):
            try:
                store.check(name, format)
            except (StoreError, OSError) as error:
                path = store.path(name, format)
                remedy = f"rm {shlex.quote(str(path))}*; repghost download {name} --format {format}"
                yield Finding(f"model {name}", PROBLEM, str(error), remedy)
    yield from _default_model(store)


def _default_model(store: ModelStore) -> Iterator[Finding]:
    """Yield the requirements of the default model on this machine."""
    try:
        format = choose().format
    except BackendError:
        return  # reported above
    if store.path(DEFAULT, format).is_file():
        return
    if format == "bin":
        detail, advice = "not in the store yet", f"repghost download {DEFAULT}"
    else:
        detail = f"not in the store yet: repghost download {DEFAULT}; or, without the archive"
        install = [name for name in ("torch", "timm") if find_spec(name) is None]
        steps = [pip_install(" ".join(install))] if install else []
        steps.append(f"repghost export {DEFAULT}")
        advice = f"{' && '.join(steps)}  (or use the built-in model: --model {DEMO})"
    yield Finding(f"model {DEFAULT}", NOTE, detail, advice)


def _optional() -> Iterator[Finding]:
    for module, (use, names) in _OPTIONAL.items():
        if find_spec(module) is None:
            yield Finding(module, NOTE, "not installed", f"for {use}: {pip_install(names)}")
        else:
            yield _import(module, NOTE, pip_install(f"--force-reinstall {names}"))
    try:
        toolchain = find_toolchain()
        found = f"hbdk-cc {toolchain.compiler} in {toolchain.programs}"
        yield Finding("vendor's toolchain", OK, found)
    except DependencyError as error:
        yield Finding("vendor's toolchain", NOTE, str(error), "for compiling .bin models, on a PC")


def pip_install(packages: str) -> str:
    """Return the command that installs packages for this Python."""
    if sys.prefix != sys.base_prefix:
        return f"{sys.executable} -m pip install {packages}"
    if (Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED").is_file():
        venv = "~/.venvs/repghost"
        make = f"{sys.executable} -m venv --system-site-packages {venv}"
        return f"{make} && {venv}/bin/pip install {packages}"
    return f"{sys.executable} -m pip install --user {packages}"


def _import(module: str, otherwise: str, advice: str = "") -> Finding:
    try:
        imported = import_module(module)
    except Exception as error:  # broken installations may raise anything
        return Finding(module, otherwise, f"not importable: {error}", advice)
    return Finding(
        module, OK, _version(module) or str(getattr(imported, "__version__", "installed"))
    )


def _version(module: str) -> str:
    """Version of the installed distribution that has this module, or empty."""
    distributions = packages_distributions().get(module, [])
    return ", ".join(version(name) for name in distributions)
