# SPDX-License-Identifier: Apache-2.0
"""The compiled helper against the Python that does the same: outcomes, errors, logits, scores, bytes.

Messages and answers lie at the end of a page that nothing may be read behind.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Iterator
from ctypes import byref
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.counting import Counting
from helpers.native import CLASSES, HEIGHT, WIDTH, Guarded, packed, serialized, without_helper
from helpers.pipeline import Inbox
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import repghost_ros.native as native
from emulator.board import Emulator, write_model
from repghost_ros import open_model
from repghost_ros.backends import conversions
from repghost_ros.backends.base import Failed
from repghost_ros.engine.model import Answered, Model, Outcome
from repghost_ros.engine.pipeline import Pipeline
from repghost_ros.engine.request import Request
from repghost_ros.engine.results import Reporting, top_k
from repghost_ros.errors import BackendError, FrameError
from repghost_ros.vision import turbojpeg
from repghost_ros.vision.cdr import Serialized
from repghost_ros.vision.frame import ENCODINGS, PACKED, Frame, from_serialized
from repghost_ros.vision.nv12 import COLOR_RANGES, RESIZE_POLICIES, ColorRange
from repghost_ros.vision.nv12 import plan as to_plan
from repghost_ros.vision.view import WHOLE, View

HELPER = native.library()
if HELPER is None:  # test_native_build.py fails then, if there is a C compiler
    pytest.skip("the compiled helper is not built: `make venv`", allow_module_level=True)
SOURCES = Path(__file__).parent.parent / "repghost_ros" / "native"
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@pytest.fixture
def models(board: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield a function that opens the same model twice: with the helper, and without it."""
    opened: list[Model] = []

    def open_both(**properties: Any) -> tuple[Model, Model]:
        shape = {"width": WIDTH, "height": HEIGHT, "classes": CLASSES, **properties}
        path = write_model(tmp_path / "model.bin", **shape)
        labels = tmp_path / "labels.txt"
        labels.write_text("".join(f"class {i} é\n" for i in range(shape["classes"])))
        for _ in range(2):
            opened.append(open_model(model_path=str(path), labels_path=str(labels)))
        return opened[-2], opened[-1]

    yield open_both
    for model in opened:
        model.close()


@pytest.fixture
def pair(models: Any) -> tuple[Model, Model]:
    """Open a plain model, with the helper and without it."""
    opened: tuple[Model, Model] = models()
    return opened


def both(
    models: tuple[Model, Model],
    requests: list[Request[Serialized]],
    before: Serialized | None = None,
) -> list[Outcome[Request[Serialized]]]:
    """Return the outcomes of a helper that has learned, after a check that Python has the same."""
    assert HELPER is not None
    ours, theirs = models
    copies = [replace(each, message=copied(each.message)) for each in requests]
    before = before or Serialized(Guarded(serialized()), compressed=False)
    first, done = run(ours, requests, before)
    with without_helper():
        expected, _ = run(theirs, copies, before)
    for outcome, python in zip(first + done, expected + expected, strict=True):
        assert outcome.kind == python.kind
        if isinstance(outcome, Answered) and isinstance(python, Answered):
            np.testing.assert_array_equal(outcome.logits, python.logits)
            mine, other = outcome.results, python.results
            assert [each.class_id for each in mine] == [each.class_id for each in other]
            np.testing.assert_allclose(
                [each.score for each in mine], [each.score for each in other], 1e-12
            )
            times = outcome.times
            assert outcome.request.received <= times.started <= times.converted <= times.inferred
        else:
            assert str(outcome.error) == str(python.error)  # type: ignore[union-attr]
    return done


def run(
    model: Model, requests: list[Request[Serialized]], before: Serialized
) -> list[list[Outcome[Request[Serialized]]]]:
    """Return the outcomes in the order of the requests, of the first time and of the second.

    The slot sees the message `before` with each request's view first.
    """
    slot, rounds = model.open_slot(), []
    try:
        for each in requests:
            list(model.run([replace(each, message=before, read=from_serialized)], slot))
        for _ in range(2):
            outcomes = {outcome.request: outcome for outcome in model.run(requests, slot)}
            rounds.append([outcomes[request] for request in requests])
    finally:
        slot.close()
    return rounds


def copied(message: Serialized) -> Serialized:
    return Serialized(bytes(message.raw), compressed=message.compressed)


def request(
    raw: bytes,
    view: View = View(source_color_range="full"),
    *,
    compressed: bool = False,
    **reporting: Any,
) -> Any:
    image = Serialized(Guarded(raw), compressed=compressed)
    return Request(image, from_serialized, view, Reporting(**reporting))


def test_structures_are_those_of_c(tmp_path: Path, pair: tuple[Model, Model]) -> None:
    slot: Any = pair[0].open_slot()
    structs: dict[str, Any] = {
        "repghost_best": native.Best,
        "repghost_pass": native.Pass,
        "repghost_program": type(slot._native[0][0]),
        "repghost_receiver": native.Receiver,
        "repghost_labels": native.Labels,
        "repghost_part": native.Part,
        "repghost_jpeg": native.Jpeg,
        "repghost_conversion": native.Conversion,
    }
    slot.close()
    names = [(struct, name) for struct, ours in structs.items() for name, _ in ours._fields_]
    lines = [f'  printf("%zu\\n", offsetof(struct {s}, {n}));' for s, n in names]
    lines += [f'  printf("%zu\\n", sizeof(struct {s}));' for s in structs]
    lines += ['  printf("%zu\\n", offsetof(struct repghost_pass, logits));']
    text = [
        f'#include "{SOURCES / "native.h"}"',
        "#include <stdio.h>",
        "int main(void) {",
        *lines,
        "  return 0;",
        "}",
    ]
    (tmp_path / "layout.c").write_text("\n".join(text))
    program = str(tmp_path / "layout")
    subprocess.run(["gcc", "-o", program, str(tmp_path / "layout.c"), "-lm"], check=True)
    told = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    ours = [getattr(structs[s], n).offset for s, n in names]
    ours += [ctypes.sizeof(each) for each in structs.values()]
    ours += [native.pass_type(CLASSES).logits.offset]  # type: ignore[attr-defined]
    assert [int(each) for each in told] == ours


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"aligned_width": 64},
        {"input_type": 2},
        {"input_layout": 0},
        {"class_step": 4},
        {"output_type": 8, "quanti": 2, "scales": 1},
        {"output_type": 11, "quanti": 2, "scales": CLASSES, "zero_points": CLASSES},
        {"output_type": 14, "quanti": 1, "scales": CLASSES},
        {"classes": 1000},
    ],
    ids=str,
)
def test_every_kind_of_model_answers_alike(models: Any, properties: dict[str, int]) -> None:
    pair = models(**properties)
    for step in (WIDTH, WIDTH + 10):
        (done,) = both(pair, [request(serialized(step=step))])
        assert isinstance(done, Answered)
        assert done.seen is None, "it went through Python"


@pytest.mark.parametrize(
    ("reporting", "view"),
    [
        ({"top_k": 1}, {}),
        ({"top_k": 16}, {}),
        ({"top_k": 17}, {}),
        ({"top_k": 100}, {}),
        ({"score_threshold": 0.06}, {}),
        ({"score_threshold": 1.0}, {}),
        ({"class_id": "index"}, {}),
        ({"temperature": 2.0}, {}),
        ({"class_deny": ("class 3 é",)}, {}),
        ({}, {"resize": "crop"}),
        ({}, {"resize": "letterbox"}),
        ({}, {"roi": (2, 2, 8, 8)}),
        ({}, {"roi": (100, 2, 8, 8)}),
        ({}, {"source_color_range": "limited"}),
    ],
    ids=str,
)
def test_every_parameter_counts(
    pair: tuple[Model, Model], reporting: dict[str, Any], view: dict[str, Any]
) -> None:
    seen = View(**{"source_color_range": "full", **view})
    both(pair, [request(serialized(), seen, **reporting)])


@pytest.mark.parametrize(
    "message",
    [
        {"encoding": "nv21"},
        {"encoding": "NV12"},
        {"encoding": "nv12 "},
        {"encoding": ""},
        {"encoding": "mono8"},
        {"encoding": "bgr8", "step": 3 * WIDTH, "data": bytes(3 * WIDTH * HEIGHT)},
        {"width": WIDTH - 2},
        {"height": HEIGHT + 2},
        {"step": WIDTH - 1},
        {"step": 0},
        {"data": b""},
        {"data": bytes(WIDTH * HEIGHT * 3 // 2 - 1)},
        {"data": bytes(WIDTH * HEIGHT * 3 // 2 + 5)},
        {"data": bytes(WIDTH * HEIGHT * 3)},
        {"step": WIDTH + 4, "data": bytes((WIDTH + 4) * (HEIGHT * 3 // 2 - 1) + WIDTH)},
        {"step": WIDTH + 4, "data": bytes((WIDTH + 4) * (HEIGHT * 3 // 2 - 1) + WIDTH - 1)},
        {"order": ">"},
        {"frame_id": ""},
        {"frame_id": "a long name of a frame/é"},
    ],
    ids=str,
)
def test_every_message_is_taken_or_refused_alike(
    pair: tuple[Model, Model], message: dict[str, Any]
) -> None:
    both(pair, [request(serialized(**message))])


@settings(max_examples=200, database=None, suppress_health_check=list(HealthCheck))
@given(
    encoding=st.sampled_from(ENCODINGS),
    size=st.tuples(st.integers(1, 70), st.integers(1, 40)) | st.just((WIDTH, HEIGHT)),
    padding=st.sampled_from([0, 0, 1, 7]),
    view=st.builds(
        View,
        roi=st.just(WHOLE) | st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 40)] * 2),
        resize=st.sampled_from(RESIZE_POLICIES),
        source_color_range=st.sampled_from(COLOR_RANGES),
    ),
    damage=st.sampled_from(["none", "cut", "short", "long", "step", "more"]),
    amount=st.integers(1, 3000),
)
def test_every_encoding_size_and_view_is_converted_alike(
    pair: tuple[Model, Model],
    encoding: str,
    size: tuple[int, int],
    padding: int,
    view: View,
    damage: str,
    amount: int,
) -> None:
    width, height = size
    even = width + width % 2
    yuv = {"yuv422": 2 * even, "yuv422_yuy2": 2 * even, "nv12": even, "nv21": even}
    step = yuv.get(encoding, width * PACKED.get(encoding, 1)) + padding
    rows = height + (height + 1) // 2 if encoding in ("nv12", "nv21") else height
    data = np.random.default_rng(step).bytes(step * rows)
    fields: dict[str, Any] = {"encoding": encoding, "width": width, "height": height, "step": step}
    whole = serialized(**fields, data=data)
    length_at = len(whole) - len(data) - 4
    damaged = {
        "none": whole,
        "cut": whole[: max(0, len(whole) - amount)],
        "short": serialized(**fields, data=data[: max(0, len(data) - amount)]),
        "long": whole[:length_at] + (len(data) + amount).to_bytes(4, "little") + data,
        "step": serialized(**{**fields, "step": step + amount}, data=data),
        "more": whole + bytes(amount),
    }[damage]
    before = request(whole).message
    (done,) = both(pair, [request(damaged, view)], before)
    if isinstance(done, Answered):
        assert done.seen is None, "it went through Python"


SAMPLING_FACTOR = getattr(cv2, "IMWRITE_JPEG_SAMPLING_FACTOR", None)
"""Older OpenCV has none and writes 4:2:0 alone."""
SAMPLINGS = [0x111111, 0x211111, 0x221111, 0x121111, 0x411111]  # IMWRITE_JPEG_SAMPLING_FACTOR_*
DAMAGES = ("cut", "flipped", "no end", "more", "comment", "without a table", "lost interval")


def jpeg(size: tuple[int, int], color: bool, seed: int, options: list[int]) -> bytes:
    shape = (size[1], size[0], 3) if color else (size[1], size[0])
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, *shape[2:]), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(coarse, size), options)[1].tobytes()


def segment(data: bytes, marker: int) -> tuple[int, int]:
    """Return where the first segment of a kind begins and ends; nowhere where there is none."""
    start = data.find(bytes([0xFF, marker]))
    if start < 0:
        return 0, 0
    return start, start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")


def damaged_jpeg(data: bytes, damage: str, place: float) -> bytes:
    scan = segment(data, 0xDA)[1]
    at = scan + int(place * (len(data) - scan))
    if damage == "cut":
        return data[: int(place * len(data))]
    if damage == "flipped":
        at = int(place * len(data))
        return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
    if damage == "no end":
        return data[:-2]
    if damage == "more":
        return data + bytes(at)
    if damage == "comment":
        return data[:2] + b"\xff\xfe\0\6abcd" + data[2:]
    if damage == "without a table":
        start, end = segment(data, 0xDB if place < 0.5 else 0xC4)
        return data[:start] + data[end:]
    restart = data.find(b"\xff\xd1", scan)
    following = data.find(b"\xff\xd2", scan)
    return data[:restart] + data[following:] if 0 < restart < following else data


@pytest.mark.skipif(turbojpeg.library() is None, reason="libturbojpeg is not installed")
@settings(max_examples=250, database=None, suppress_health_check=list(HealthCheck))
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 90)) | st.just((128, 72)),
    color=st.booleans(),
    sampling=st.sampled_from(SAMPLINGS),
    kind=st.sampled_from(
        [[], [], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]]
    ),
    format=st.sampled_from(
        ["jpeg", "bgr8; jpeg compressed bgr8", "rgb8; jpeg compressed rgb8", "bayer_rggb8; jpeg"]
    ),
    view=st.builds(
        View,
        roi=st.just(WHOLE) | st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 40)] * 2),
        resize=st.sampled_from(RESIZE_POLICIES),
        source_color_range=st.sampled_from(COLOR_RANGES),
    ),
    damage=st.sampled_from(["", "", *DAMAGES]),
    place=st.floats(0, 1, exclude_max=True),
)
def test_every_jpeg_is_converted_alike(
    pair: tuple[Model, Model],
    size: tuple[int, int],
    color: bool,
    sampling: int,
    kind: list[int],
    format: str,
    view: View,
    damage: str,
    place: float,
) -> None:
    options = kind if SAMPLING_FACTOR is None else [*kind, SAMPLING_FACTOR, sampling]
    first, second = (jpeg(size, color, seed, options) for seed in range(2))
    raw = packed(damaged_jpeg(second, damage, place), format)
    before = request(packed(first, format), compressed=True).message
    (done,) = both(pair, [request(raw, view, compressed=True)], before)
    plain = not kind and damage in ("", "comment") and sampling != 0x121111
    if plain and format in ("jpeg", "bgr8; jpeg compressed bgr8") and isinstance(done, Answered):
        assert done.seen is None, "it went through Python"


def inserted(data: bytes, marker: int, content: bytes = b"abcd", size: int = -1) -> bytes:
    """Put a segment behind the start of a JPEG; `size` is told in place of its own."""
    told = (len(content) + 2 if size < 0 else size).to_bytes(2, "big")
    return data[:2] + bytes([0xFF, marker]) + told + content + data[2:]


def replaced(data: bytes, marker: int, content: bytes) -> bytes:
    """Put a segment in the place of that of its kind, or where there is none, in front of the scan."""
    start, end = segment(data, marker)
    if not end:
        start = end = segment(data, 0xDA)[0]
    return data[:start] + inserted(b"", marker, content) + data[end:]


def changed(data: bytes, marker: int, place: int) -> bytes:
    """Flip a bit of a segment's byte, counted from its end."""
    at = segment(data, marker)[1] + place
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def twice(data: bytes, marker: int) -> bytes:
    start, end = segment(data, marker)
    return data[:end] + data[start:end] + data[end:]


COMMENT, FIRST_APP, LAST_APP, LINES, RESERVED = 0xFE, 0xE0, 0xEF, 0xDC, 0xF0
FRAME, HUFFMAN, EXTENSION, ARITHMETIC, QUANTIZATION, INTERVAL = 0xC0, 0xC4, 0xC8, 0xCC, 0xDB, 0xDD


@pytest.mark.skipif(turbojpeg.library() is None, reason="libturbojpeg is not installed")
@pytest.mark.parametrize("interval", [0, 2])
@pytest.mark.parametrize(
    ("change", "taken"),
    [
        (lambda data: data, True),
        (lambda data: inserted(data, COMMENT), True),
        (lambda data: inserted(data, COMMENT, b""), True),
        (lambda data: inserted(data, COMMENT, bytes(1000)), True),
        (lambda data: inserted(data, FIRST_APP), True),
        (lambda data: inserted(data, LAST_APP), True),
        (lambda data: twice(twice(data, HUFFMAN), QUANTIZATION), True),
        (lambda data: data + b"more", True),
        (lambda data: data[:-2] + b"\xff" + data[-2:], True),  # a fill byte
        (lambda data: inserted(data, COMMENT, b"", 1), False),
        (lambda data: inserted(data, COMMENT, b"", 65535), False),
        (lambda data: inserted(data, RESERVED), False),
        (lambda data: inserted(data, FIRST_APP - 1), False),
        (lambda data: inserted(data, LINES), False),
        (lambda data: inserted(data, EXTENSION), False),
        (lambda data: inserted(data, ARITHMETIC), False),
        (lambda data: replaced(data, INTERVAL, b"\0\7"), False),
        (lambda data: replaced(data, INTERVAL, b"\0"), False),
        (lambda data: twice(data, FRAME), False),
        (lambda data: data[:2] + data[segment(data, FRAME)[0] :], False),
        (lambda data: b"\xff\xd9" + data[2:], False),
        (lambda data: b"\xfe\xd8" + data[2:], False),
        (lambda data: data[:-2], False),
        (lambda data: data[:-2] + b"\xff", False),
        (lambda data: data[:-2] + b"\xff\xdc" + data[-2:], False),
        (lambda data: changed(data, FRAME, -1), False),
        (lambda data: data[:3], False),
        (lambda data: data[:5], False),
        (lambda data: data[: segment(data, FRAME)[0] + 3], False),
    ],
)
def test_a_jpeg_is_taken_if_it_is_framed_as_the_one_before(
    pair: tuple[Model, Model], change: Callable[[bytes], bytes], taken: bool, interval: int
) -> None:
    options = [cv2.IMWRITE_JPEG_RST_INTERVAL, interval]
    first, second = (jpeg((64, 48), True, seed, options) for seed in range(2))
    before = request(packed(first), compressed=True).message
    asked = request(packed(change(second)), compressed=True)
    both(pair, [asked], before)
    ((done,), _) = run(pair[0], [asked], before)
    assert (isinstance(done, Answered) and done.seen is None) == taken


@pytest.mark.skipif(turbojpeg.library() is None, reason="libturbojpeg is not installed")
@pytest.mark.parametrize("interval", [2, 4], ids=["lost", "another"])
def test_a_jpeg_whose_restarts_are_not_those_before_is_left_to_python(
    pair: tuple[Model, Model], interval: int
) -> None:
    first, second = (
        jpeg((64, 48), True, seed, [cv2.IMWRITE_JPEG_RST_INTERVAL, each])
        for seed, each in enumerate((2, interval))
    )
    if interval == 2:
        second = damaged_jpeg(second, "lost interval", 0.0)
    before = request(packed(first), compressed=True).message
    asked = request(packed(second), compressed=True)
    both(pair, [asked], before)
    ((done,), _) = run(pair[0], [asked], before)
    assert not isinstance(done, Answered) or done.seen is not None


@pytest.mark.skipif(turbojpeg.library() is None, reason="libturbojpeg is not installed")
def test_a_jpeg_of_an_extended_process_is_taken(pair: tuple[Model, Model]) -> None:
    """SOF1, which has the same picture data if it uses no more tables than the baseline."""
    first, second = (
        jpeg((64, 48), True, seed, []).replace(b"\xff\xc0", b"\xff\xc1") for seed in range(2)
    )
    before = request(packed(first), compressed=True).message
    (done,) = both(pair, [request(packed(second), compressed=True)], before)
    assert isinstance(done, Answered)
    assert done.seen is None, "it went through Python"


@pytest.mark.skipif(turbojpeg.library() is None, reason="libturbojpeg is not installed")
def test_a_jpeg_without_tables_is_not_decoded_with_those_of_the_one_before(
    pair: tuple[Model, Model],
) -> None:
    whole = jpeg((64, 48), True, 0, [])
    before = request(packed(whole), compressed=True).message
    start, end = segment(whole, 0xDB)
    (done,) = both(pair, [request(packed(whole[:start] + whole[end:]), compressed=True)], before)
    assert done.kind == "refused"


@pytest.mark.parametrize("source", COLOR_RANGES)
@pytest.mark.parametrize("target", COLOR_RANGES)
def test_levels_are_changed_alike(source: ColorRange, target: ColorRange) -> None:
    """NV12 of the model's size, by 16 bits in one pass."""
    levels = np.arange(256, dtype=np.uint8)
    frame = Frame("nv12", 16, 16, (levels.reshape(16, 16), np.resize(levels, (8, 8, 2))))
    out = np.empty((24, 16), np.uint8)
    plan = to_plan(frame, out, color_range=target, source_color_range=source)
    plan.run()
    for part, made in zip(plan.parts, (out[:16], out[16:]), strict=True):
        numbers = conversions._levels(part.scaling)
        assert numbers is not None
        pixels, short = np.ascontiguousarray(part.lines[0]), np.empty(made.size, np.uint8)
        assert HELPER is not None
        HELPER.repghost_relevel(short.ctypes.data, pixels.ctypes.data, *numbers, short.size)
        np.testing.assert_array_equal(short, made.reshape(-1))


def test_what_another_rule_reads_is_not_converted_by_its_message(pair: tuple[Model, Model]) -> None:
    def refuse(_: Serialized) -> Any:
        raise FrameError("by another rule")

    known = request(serialized())
    (done,) = both(pair, [replace(known, read=refuse)])
    assert done.kind == "refused"


def test_frames_end_alike_whichever_allocation_fails(
    models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Nth of a batch is tried again in Python; where all fail, so do the frames, and no others."""
    helper = Counting(tmp_path)
    monkeypatch.setattr(native, "library", lambda: helper)
    model, _ = models(batch=4)
    slot = model.open_slot()
    bgr: dict[str, Any] = {"encoding": "bgr8", "step": 3 * WIDTH, "data": bytes(3 * WIDTH * HEIGHT)}
    large = serialized(
        width=2 * WIDTH, height=2 * HEIGHT, step=2 * WIDTH, data=bytes(6 * WIDTH * HEIGHT)
    )
    raws = [large, serialized(**bgr), serialized()]

    def ended(nth: int, count: int) -> list[Outcome[Any]]:
        requests = [request(raw) for raw in raws]
        with helper.failing(nth, count):
            outcomes = {outcome.request: outcome for outcome in model.run(requests, slot)}
        return [outcomes[each] for each in requests]

    ended(10**6, 0)
    before = helper.allocations
    whole = ended(10**6, 0)
    allocations = helper.allocations - before
    assert allocations == 3
    for nth in range(1, allocations + 1):
        for mine, other in zip(ended(nth, 1), whole, strict=True):
            assert isinstance(mine, Answered)
            assert isinstance(other, Answered)
            np.testing.assert_array_equal(mine.logits, other.logits)
        failed = ended(nth, 10**6)
        assert {each.kind for each in failed} <= {"answered", "failed"}
        for each in failed:
            if isinstance(each, Failed):
                assert str(each.error) == "there is no memory to scale a frame"
        assert isinstance(failed[1], Failed)
        assert isinstance(failed[2], Answered), "it needs no memory"
    assert [each.kind for each in ended(10**6, 0)] == ["answered"] * 3
    assert helper.kept == 0
    slot.close()


def test_no_frame_shows_through_the_next_one(models: Any) -> None:
    """Bars and the chroma of gray frames are written each time, though colors lie in the input."""
    ours, theirs = models()
    random = np.random.default_rng(0)
    color, gray = (
        serialized(encoding=encoding, step=size * WIDTH, data=random.bytes(size * WIDTH * HEIGHT))
        for encoding, size in (("bgr8", 3), ("mono8", 1))
    )
    high = serialized(width=8, step=8, data=random.bytes(8 * HEIGHT * 3 // 2))
    barred = View(resize="letterbox")
    frames = [(color, View()), (gray, View()), (color, View()), (high, barred)]
    slot = ours.open_slot()
    with without_helper():
        reference = theirs.open_slot()
    for number, (raw, view) in enumerate(frames * 3):
        (done,) = ours.run([request(raw, view)], slot)
        (python,) = theirs.run([request(raw, view)], reference)
        assert isinstance(done, Answered)
        assert isinstance(python, Answered)
        assert (done.seen is None) == (number >= len(frames) or number == 2)
        np.testing.assert_array_equal(done.logits, python.logits)
    slot.close()
    reference.close()


def test_a_driver_that_changes_its_fields_all_the_time_is_served(
    pair: tuple[Model, Model],
) -> None:
    slot: Any = pair[0].open_slot()
    for _ in range(2):
        for padding in range(3 * conversions._MOST):
            raw = serialized(step=WIDTH + padding)
            (done,) = pair[0].run([request(raw)], slot)
            assert isinstance(done, Answered)
    assert len(slot._conversions._known) <= conversions._MOST
    slot.close()


def test_jpegs_of_any_number_of_sizes_share_the_memory(
    pair: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversions, "_MOST_BYTES", 10_000)
    slot: Any = pair[0].open_slot()
    for height in (*range(40, 80, 8), *range(40, 80, 8)):
        raw = packed(jpeg((64, height), True, height, []))
        (done,) = pair[0].run([request(raw, compressed=True)], slot)
        assert isinstance(done, Answered)
        assert slot._conversions._bytes <= 10_000
    slot.close()


def test_workers_run_it_at_the_same_time(pair: tuple[Model, Model], board: Emulator) -> None:
    messages = [serialized(step=WIDTH + 2 * number) for number in range(8)]
    expected = [done.logits for raw in messages for done in both(pair, [request(raw)])]  # type: ignore[union-attr]
    inbox, pipeline = Inbox(), Pipeline(pair[0], workers=4)
    stream = pipeline.open_stream(inbox, queue_depth=400)
    for number in range(400):
        stream.submit([request(messages[number % 8])])
        pipeline.bell.ring()
    inbox.wait(400)
    assert pipeline.close()
    for number, outcome in enumerate(inbox.outcomes):
        assert isinstance(outcome, Answered)
        np.testing.assert_array_equal(outcome.logits, expected[number % 8])
    assert board.stats()["max_in_flight"] > 1


def test_every_truncation_is_refused_alike(pair: tuple[Model, Model]) -> None:
    whole = serialized()
    for length in (*range(90), len(whole) - 1, len(whole)):
        (done,) = both(pair, [request(whole[:length])])
        assert (done.kind == "answered") == (length == len(whole))


@settings(max_examples=150, database=None, suppress_health_check=list(HealthCheck))
@given(changes=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=4))
def test_damaged_headers_end_alike(
    pair: tuple[Model, Model], changes: list[tuple[int, int]]
) -> None:
    raw = bytearray(serialized())
    for place, value in changes:
        raw[place] = value
    both(pair, [request(bytes(raw))])


def test_frames_of_a_batch_end_alike_each_by_itself(models: Any) -> None:
    pair = models(batch=4)
    mixtures: list[list[dict[str, Any]]] = [
        [{}, {}, {}, {}],
        [{}, {"encoding": "mono8"}, {"step": 3}, {}],
        [{"step": 3}, {"step": 3}],
        [{"data": b""}, {}, {"order": ">"}],
        [{"encoding": "mono8"}],
    ]
    for kinds in mixtures:
        raws = [serialized(**{"frame_id": "x" * i, **kind}) for i, kind in enumerate(kinds)]
        both(pair, [request(raw) for raw in raws])


@pytest.mark.parametrize("operation", ["flush", "infer", "run", "wait"])
def test_failures_of_the_device_are_told_alike(
    pair: tuple[Model, Model], board: Emulator, operation: str
) -> None:
    told = []
    for helper in (True, False):
        slot = pair[0].open_slot() if helper else None
        with without_helper():
            slot = slot or pair[1].open_slot()
        board.fail(operation, 6001)
        (failed,) = pair[0].run([request(serialized())], slot)
        (after,) = pair[0].run([request(serialized())], slot)
        slot.close()
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, BackendError)
        assert after.kind == "answered"
        told.append(str(failed.error))
    assert told[0] == told[1]


@given(
    st.lists(st.floats(-1e4, 1e4, width=32) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=60),
    st.integers(1, native.MOST_CLASSES),
    st.floats(0, 1),
)
def test_the_best_classes_are_those_of_numpy(
    values: list[float], wanted: int, threshold: float
) -> None:
    logits = np.array(values, np.float32)
    assert HELPER is not None
    ranked, scores = native.Best(), np.empty(logits.size)
    HELPER.repghost_rank(
        logits.ctypes.data, logits.size, wanted, threshold, byref(ranked), scores.ctypes.data
    )
    best = list(ranked)
    expected = top_k(logits, wanted)
    # Of scores at the threshold, rounding decides.
    surely = [pair for pair in expected if pair[1] > threshold * (1 + 1e-12)]
    perhaps = [pair for pair in expected if pair[1] >= threshold * (1 - 1e-12)]
    assert len(surely) <= len(best) <= len(perhaps)
    assert [index for index, _ in best] == [index for index, _ in perhaps[: len(best)]]
    np.testing.assert_allclose(
        [score for _, score in best], [score for _, score in perhaps[: len(best)]], 1e-12
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(
    pair: tuple[Model, Model], board: Emulator, bad: float
) -> None:
    def compute(nv12: np.ndarray) -> np.ndarray:
        logits = np.zeros(CLASSES, np.float32)
        logits[3] = bad
        return logits

    board.compute(compute)
    (done,) = both(pair, [request(serialized())])
    assert done.kind == "failed"


@given(
    TEXTS,
    st.lists(st.tuples(TEXTS, st.floats(0, 1)), max_size=native.MOST_CLASSES),
    st.booleans(),
    st.integers(0, 3000),
)
def test_answers_are_serialized_as_in_python(
    frame_id: str, pairs: list[tuple[str, float]], by_label: bool, short: int
) -> None:
    pytest.importorskip("rclpy")
    from repghost_ros.ros import messages

    assert HELPER is not None
    image = Guarded(serialized(frame_id, data=b"")[:])
    labels = [name for name, _ in pairs] or ["none"]
    best = native.Best(count=len(pairs))
    for i, (_, score) in enumerate(pairs):
        best.index[i], best.score[i] = i, score
    named = Reporting(class_id="label" if by_label else "index").named(best, labels)
    expected = messages.serialized_classification(
        Serialized(image, compressed=False),
        named,
    )
    table = native.Labels(labels)
    out = Guarded(b"\xee" * (len(expected) + 8 + 32 * len(pairs)))
    size = HELPER.repghost_serialize(
        image.address,
        image.size,
        byref(best),
        byref(table) if by_label else None,
        out.address,
        out.size,
    )
    assert bytes(out.view()[:size]) == expected
    # Too little room is told, and nothing is written behind it.
    little = Guarded(b"\xee" * min(short, len(expected) - 1))
    assert not HELPER.repghost_serialize(
        image.address,
        image.size,
        byref(best),
        byref(table) if by_label else None,
        little.address,
        little.size,
    )
