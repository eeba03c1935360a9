# SPDX-License-Identifier: Apache-2.0
"""Keeps the tests' ROS graph and logs to themselves; the emulated board."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Not by `pythonpath` in pyproject.toml, of which the pytest of Ubuntu 22.04 warns.
sys.path.insert(0, str(Path(__file__).parent.parent))
if os.environ.get("COLCON"):
    # `colcon test` tests what `colcon build` installed: in front of it are the sources, in which plain
    # `colcon build` compiles nothing. Programs that the tests start look into their folder first.
    _ROOT = sys.path[0]
    sys.path[:] = [*(each for each in sys.path if each not in ("", _ROOT)), _ROOT]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), _ROOT]))
    os.chdir(Path(__file__).parent)

from helpers.server import Archive
from hypothesis import Phase, settings

from emulator.board import Emulator, build, write_model
from repghost_ros.backends import hb_dnn
from repghost_ros.ros.isolation import isolate

if TYPE_CHECKING:
    from helpers.graph import Robot

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# A mutant is to fail as fast as it can, by the same examples each time: `make mutants`.
settings.register_profile(
    "mutants",
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
)
# A shell starts what runs in its background with SIGINT ignored, and the tests interrupt programs.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Before rclpy is imported: a domain of its own for every run, and no log files in the user's home.
isolate()
_LOGS = tempfile.TemporaryDirectory(prefix="repghost_ros_log_")
os.environ["ROS_LOG_DIR"] = _LOGS.name

# Without ROS the others are run: `make test-jammy`.
_ROS_TESTS = (
    "counts",
    "cycles",
    "interfaces",
    "isolation",
    "monitor",
    "package",
    "parameters",
    "play",
    "rcl_headers",
    "rclpy_api",
    "soak",
)
_NODE_TESTS = (
    "demo_street",
    "node",
    "node_answers",
    "node_board",
    "node_cameras",
    "node_faults",
    "node_managed",
    "node_rdk",
    "node_regions",
    "node_regions_options",
    "node_start",
    "launch",
    "launch_files",
    "replay_regions",
)
if find_spec("rclpy") is None:
    collect_ignore = [f"test_{name}.py" for name in (*_ROS_TESTS, *_NODE_TESTS)]
elif find_spec("hbm_img_msgs") is None or find_spec("ai_msgs") is None:
    collect_ignore = ["test_node_rdk.py"]  # only tools/setup_env.sh and the RDK have them


# Once a test has loaded the emulated library, the loader knows "libdnn.so" in this process: later tests
# would find a board.
hb_dnn._BY_NAME = "libdnn-of-no-board.so"


@pytest.fixture(autouse=True)
def log_propagates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what `launch` does to every logger that is created once it is imported."""
    logging.setLoggerClass(logging.Logger)
    for name, logger in logging.root.manager.loggerDict.items():
        if name.split(".")[0] == "repghost_ros" and isinstance(logger, logging.Logger):
            monkeypatch.setattr(logger, "propagate", True)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the emulated libdnn.so, unless REPGHOST_EMULATOR gives the path of a compiled one."""
    built = os.environ.get("REPGHOST_EMULATOR")
    return Path(built) if built else build(tmp_path_factory.mktemp("libdnn"))


@pytest.fixture(autouse=True)
def no_board_is_left() -> Iterator[None]:
    """Remove the emulated vendor package of a test, so that the next one does not import it."""
    yield
    for name in [name for name in sys.modules if name.startswith("hobot_dnn")]:
        del sys.modules[name]


@pytest.fixture
def board(library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Load the emulated board in this process; a test that leaves anything behind on it fails."""
    monkeypatch.setenv("REPGHOST_LIBDNN", str(library))
    board = Emulator(library)
    before = board.stats()
    board.reset()
    yield board
    board.compute(None)
    after = board.stats()
    live = ("live_models", "live_allocations", "live_tasks")
    assert {name: after[name] for name in live} == {name: before[name] for name in live}
    rules = ("bad_frees", "bad_handles", "freed_in_use", "stale_inputs")
    assert {name: after[name] for name in rules} == dict.fromkeys(rules, 0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Write a stand-in model file of ImageNet's shape."""
    return write_model(tmp_path / "model.bin")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty model store of this test's own."""
    monkeypatch.setenv("REPGHOST_HOME", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def archive() -> Iterator[Archive]:
    """Run a model archive."""
    archive = Archive()
    thread = threading.Thread(target=archive.serve_forever, args=(0.01,))
    thread.start()
    yield archive
    archive.shutdown()
    thread.join()
    archive.server_close()


@pytest.fixture
def robot(request: pytest.FixtureRequest) -> Iterator[Robot]:
    """Open the test's side of the ROS graph; the module's NODE is the name of the node under test."""
    from helpers.graph import Robot

    robot = Robot(getattr(request.module, "NODE", "repghost"))
    yield robot
    robot.close()
