# SPDX-License-Identifier: Apache-2.0
"""The RDK's own messages: shared-memory images in, perception targets out."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from ai_msgs.msg import Attribute, PerceptionTargets, Roi, Target
from builtin_interfaces.msg import Time
from hbm_img_msgs.msg import HbmMsg480P, HbmMsg1080P
from helpers.detections import BOXES, PICTURE, SIGNS
from helpers.graph import BEST_EFFORT, Robot, best, image, running_node, sign, wait_until
from rclpy.serialization import serialize_message
from rclpy.time import Time as RosTime
from sensor_msgs.msg import CompressedImage, RegionOfInterest
from std_msgs.msg import Header

from repghost_ros.backends.base import Times
from repghost_ros.engine.model import Answered
from repghost_ros.engine.request import Request
from repghost_ros.errors import FrameError
from repghost_ros.ros.perception import targets
from repghost_ros.vision.boxes import Box
from repghost_ros.vision.cdr import SerializedHbm
from repghost_ros.vision.frame import from_array


def hbm(message_type: Any, pixels: np.ndarray, stamp: int) -> Any:
    """Make an NV12 message as the MIPI camera fills it: a buffer that is larger than the picture."""
    height, width = pixels.shape[:2]
    i420 = cv2.cvtColor(pixels, cv2.COLOR_BGR2YUV_I420).reshape(-1)
    chroma = i420[width * height :].reshape(2, -1).T.reshape(-1)
    nv12 = np.concatenate([i420[: width * height], chroma])
    message = message_type(index=7, time_stamp=Time(sec=stamp), width=width, height=height)
    message.step, message.data_size = width, len(nv12)
    message.encoding[:4] = list(b"nv12")
    message.data[: len(nv12)] = nv12
    return message


@pytest.mark.parametrize("message_type", [HbmMsg1080P, HbmMsg480P])
def test_shared_memory_images_are_classified(robot: Robot, message_type: Any) -> None:
    with running_node("-r", "image:=/hbmem_img", image_transport="hbmem"):
        publisher = robot.publisher("/hbmem_img", message_type, BEST_EFFORT)
        message = hbm(message_type, sign("stop"), stamp=5)

        def answered() -> Any:
            publisher.publish(message)
            return robot.classifications

        wait_until(answered, "the answer")
    answer = robot.classifications[0]
    assert best(answer) == "stop"
    assert (answer.header.stamp.sec, answer.header.frame_id) == (5, "7")


def test_pixels_are_not_copied() -> None:
    raw = serialize_message(hbm(HbmMsg1080P, sign("stop"), stamp=5))
    image = SerializedHbm(raw).message
    assert np.shares_memory(np.frombuffer(image.data, np.uint8), np.frombuffer(raw, np.uint8))


def test_a_size_beyond_the_buffer_is_refused() -> None:
    message = hbm(HbmMsg480P, sign("stop"), stamp=5)
    message.data_size = 10**9
    with pytest.raises(FrameError, match="buffer has 921600 bytes"):
        _ = SerializedHbm(serialize_message(message)).message


def test_answers_go_to_the_vendors_page(robot: Robot) -> None:
    with running_node(perception="true"):
        publisher = robot.publisher()
        received = robot.collect(PerceptionTargets, "/repghost/perception")
        overlays = robot.collect(CompressedImage, "/repghost/overlay/compressed")
        answer = robot.answer(publisher, image(sign("stop"), stamp=9))

        def published() -> bool:
            publisher.publish(image(sign("stop"), stamp=10))
            return bool(received and overlays)

        wait_until(published, "perception and overlay")
    message = received[0]
    assert [t.type for t in message.targets] == [r.class_id for r in answer.results]
    assert message.targets[0].rois[0].confidence == pytest.approx(answer.results[0].score, 0.01)
    steps = {perf.type: perf.time_ms_duration for perf in message.perfs}
    assert list(steps) == [
        "repghost_demo_preprocess",
        "repghost_demo_predict_infer",
        "repghost_demo_pipeline",
    ]
    assert steps["repghost_demo_pipeline"] >= steps["repghost_demo_predict_infer"] > 0
    picture = cv2.imdecode(np.asarray(overlays[0].data), cv2.IMREAD_COLOR)
    assert picture.shape == sign("stop").shape


def found(box: Box) -> Target:
    """Make a target as the RDK's detectors send it: the whole object first, then a part of it."""
    left, top = round(box.x - box.width / 2), round(box.y - box.height / 2)
    rect = RegionOfInterest(x_offset=left, y_offset=top, width=box.width, height=box.height)
    rois = [Roi(type="sign", rect=rect, confidence=0.75), Roi(type="pole")]
    color = Attribute(type="color", value=3.0, confidence=0.5)
    return Target(type="object", track_id=int(box.id) + 1, rois=rois, attributes=[color])


def test_the_targets_of_a_detector_are_named(robot: Robot) -> None:
    with running_node(detections="boxes", top_k="1", qos_reliability="reliable"):
        images, boxes = robot.publisher(), robot.publisher("boxes", PerceptionTargets)
        received = robot.collect(PerceptionTargets, "/repghost/perception")
        message = image(PICTURE, stamp=11)
        sent = PerceptionTargets(header=message.header, fps=30)
        sent.targets = [*map(found, BOXES), Target(type="nowhere")]
        sent.disappeared_targets = [Target(type="object", track_id=99)]

        def published() -> bool:
            message.header.stamp.sec += 1
            sent.header = message.header
            images.publish(message)
            boxes.publish(sent)
            return bool(received)

        wait_until(published, "perception")
    answer = received[0]
    named = [[attribute.type for attribute in target.attributes] for target in answer.targets]
    assert named == [*(["color", sign] for sign in SIGNS), []]
    assert answer.targets[0].attributes[1].confidence > 0.5
    for target in answer.targets:
        target.attributes = target.attributes[:1]
    sent.header = answer.header
    assert answer == sent  # all else is unchanged


def test_figures_name_the_model_that_answered() -> None:
    """The parameter may name the next one already, while that is being opened."""
    model: Any = SimpleNamespace(name="111", labels=("stop",))
    request = Request(None, from_array, received=0.5)
    answered = Answered(request, model, [(0, 0.75)], np.zeros(1), Times(1.0, 2.0, 4.0), None)
    message = targets(answered, Header(), RosTime(seconds=100))
    assert {perf.type: perf.time_ms_duration for perf in message.perfs} == {
        "repghost_111_preprocess": 1000.0,
        "repghost_111_predict_infer": 2000.0,
        "repghost_111_pipeline": 3500.0,
    }


@pytest.mark.parametrize(
    ("parameter", "package"),
    [({"image_transport": "hbmem"}, "hbm_img_msgs"), ({"perception": "true"}, "ai_msgs")],
)
def test_a_missing_package_is_named(tmp_path: Any, parameter: dict[str, Any], package: str) -> None:
    broken = tmp_path / package
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('not installed')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with running_node(env={"PYTHONPATH": path}, **parameter) as node:
        wait_until(lambda: f"{package}.msg is needed here" in node.output(), "the reason")
        assert "/opt/tros/humble/setup.bash" in node.output()
