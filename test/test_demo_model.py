"""The demo model reads the signs that the package draws: real ONNX Runtime, unseen pictures."""

import cv2
import numpy as np
import onnxruntime
import pytest

from repghost_ros.signs import LABELS, NO_SIGN, render

SIDE = 224
SEED = 2  # training draws with 0, its own held-out set with 1
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
SCALE = np.array([0.01712475, 0.017507, 0.01742919], np.float32)


@pytest.fixture(scope="module")
def model_path(request):
    return request.config.rootpath / "models" / "demo.onnx"


@pytest.fixture(scope="module")
def session(model_path):
    return onnxruntime.InferenceSession(str(model_path), providers=["CPUExecutionProvider"])


def through_nv12(bgr):
    """Stretch to the model's size and lose what full-range BT.601 4:2:0 loses; RGB uint8."""
    bgr = cv2.resize(bgr, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    luma, *chroma = cv2.split(cv2.cvtColor(bgr, cv2.COLOR_BGR2YCrCb))
    for i, plane in enumerate(chroma):
        halved = cv2.resize(plane, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
        chroma[i] = cv2.resize(halved, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    return cv2.cvtColor(cv2.merge([luma, *chroma]), cv2.COLOR_YCrCb2RGB)


def logits_of(session, bgr):
    data = ((through_nv12(bgr) - MEAN) * SCALE).transpose(2, 0, 1)[None]
    (logits,) = session.run(None, {"data": np.ascontiguousarray(data, np.float32)})
    return logits[0]


def test_the_file_is_small_and_whole(model_path):
    assert 1_000_000 < model_path.stat().st_size < 10_000_000
    assert [path.name for path in model_path.parent.glob("demo*")] == ["demo.onnx"]


def test_inputs_and_outputs(session):
    (data,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (data.name, data.type, data.shape) == ("data", "tensor(float)", [1, 3, SIDE, SIDE])
    assert (logits.name, logits.type, logits.shape) == (
        "logits",
        "tensor(float)",
        [1, len(LABELS)],
    )


def test_the_model_carries_its_labels(session):
    carried = session.get_modelmeta().custom_metadata_map["labels"]
    assert tuple(carried.split("\n")) == LABELS


@pytest.mark.parametrize(("size", "per_class"), [((SIDE, SIDE), 30), ((640, 480), 10)])
def test_unseen_pictures_are_named_right(session, size, per_class):
    wrong = []
    for index in range(per_class * len(LABELS)):
        truth = LABELS[index % len(LABELS)]
        picture = render(truth, np.random.default_rng([SEED, index]), *size)
        named = LABELS[int(logits_of(session, picture).argmax())]
        if named != truth:
            wrong.append(f"{index}: {truth} taken for {named}")
    assert len(wrong) <= 0.03 * per_class * len(LABELS), "\n".join(wrong)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_blank_frame_is_no_sign(session, grey):
    blank = np.full((SIDE, SIDE, 3), grey, np.uint8)
    assert LABELS[int(logits_of(session, blank).argmax())] == NO_SIGN
