# SPDX-License-Identifier: Apache-2.0
"""The demo model reads the signs that the package draws: real ONNX Runtime, unseen pictures."""

import numpy as np
import onnxruntime
import pytest

from repghost_ros.backends.onnx import OnnxBackend
from repghost_ros.sources.signs import LABELS, NO_SIGN, render
from repghost_ros.vision.frame import from_array
from repghost_ros.vision.nv12 import to_nv12

SIDE = 224
SEED = 2  # training draws with 0, its own held-out set with 1


@pytest.fixture(scope="module")
def model_path(request):
    return request.config.rootpath / "models" / "demo.onnx"


@pytest.fixture(scope="module")
def session(model_path):
    return onnxruntime.InferenceSession(str(model_path), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def slot(model_path):
    return OnnxBackend(model_path).open_slot()


def name_of(slot, bgr):
    to_nv12(from_array(bgr), slot.nv12)
    return LABELS[int(slot.infer().argmax())]


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
def test_unseen_pictures_are_named_right(slot, size, per_class):
    """Fewer pictures than were measured on (training/README.md), hence a wider bound."""
    wrong = []
    for index in range(per_class * len(LABELS)):
        truth = LABELS[index % len(LABELS)]
        picture = render(truth, np.random.default_rng([SEED, index]), *size)
        named = name_of(slot, picture)
        if named != truth:
            wrong.append(f"{index}: {truth} taken for {named}")
    assert len(wrong) <= 0.02 * per_class * len(LABELS), "\n".join(wrong)


@pytest.mark.parametrize("gray", [0, 128, 255])
def test_a_blank_frame_is_no_sign(slot, gray):
    blank = np.full((SIDE, SIDE, 3), gray, np.uint8)
    assert name_of(slot, blank) == NO_SIGN
