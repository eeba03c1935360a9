# SPDX-License-Identifier: Apache-2.0
"""The node on the emulated board, in a process of its own: answers, faults, recovery, nothing left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from helpers.graph import Robot, image, running_node, wait_until
from sensor_msgs.msg import Image

from emulator.board import hash_logits, inject, timings, write_model
from repghost_ros.engine.results import top_k
from repghost_ros.files import record
from repghost_ros.ros import messages
from repghost_ros.sources.signs import render
from repghost_ros.zoo.catalogue import MODELS

NAMED = ("-r", "__node:=board", "-r", "image:=board_image")


NODE = "board"


class Board:
    """Runs the node on an emulated board, and counts what it left there."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.model = write_model(folder / "model.bin", **timings("100"))
        self.control = folder / "control"
        self._stats = folder / "stats"
        self.environment = {
            "REPGHOST_LIBDNN": str(library),
            "REPGHOST_EMU_CONTROL": str(self.control),
            "REPGHOST_EMU_STATS": str(self._stats),
        }

    def run(self, **parameters: Any) -> Any:
        chosen = {"model_path": self.model, "color_range": "limited", **parameters}
        return running_node(*NAMED, env=self.environment, **chosen)

    def left(self) -> dict[str, int]:
        """Return the emulator's counters at the end of the node's process."""
        lines = self._stats.read_text().splitlines()
        return {name: int(number) for name, number in (line.split() for line in lines)}

    def assert_clean(self) -> None:
        left = self.left()
        rules = ("live_models", "live_allocations", "live_tasks", "bad_frees", "bad_handles")
        assert {name: left[name] for name in rules} == dict.fromkeys(rules, 0)


@pytest.fixture(params=["1", "0"], ids=["helper", "python"])
def board(library: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Board:
    board = Board(library, tmp_path)
    board.environment["REPGHOST_NATIVE"] = request.param
    return board


def nv12_message(stamp: int, seed: int = 0) -> tuple[Image, np.ndarray]:
    """Make a random 224x224 NV12 message, and its data as the model will see it."""
    data = np.random.default_rng(seed).integers(0, 256, (336, 224), dtype=np.uint8)
    message = image(np.zeros((224, 224, 3), np.uint8), stamp)
    message.encoding, message.step = "nv12", 224
    message.data = data.tobytes()
    return message, data


def statuses(received: list[Any], suffix: str) -> list[Any]:
    return [s for message in received for s in message.status if s.name.endswith(suffix)]


def publish_until(
    robot: Robot, publisher: Any, condition: Callable[[], Any], stamps: Iterator[int]
) -> None:
    """Keep a slow camera running until something has happened."""

    def step() -> Any:
        publisher.publish(nv12_message(next(stamps))[0])
        return condition()

    wait_until(step, "the condition while frames flow")


def test_answers_are_the_boards(robot: Robot, board: Board) -> None:
    with board.run(class_id="index"):
        publisher = robot.publisher("board_image")
        for stamp in range(1, 9):
            message, data = nv12_message(stamp, seed=stamp)
            results = messages.results(robot.answer(publisher, message))
            best = top_k(hash_logits(data, 1000), 5)
            assert [result.class_id for result in results] == [str(index) for index, _ in best]
    board.assert_clean()


def test_cameras_share_batches_and_keep_their_answers(
    library: Path, tmp_path: Path, robot: Robot
) -> None:
    """Frames of two cameras, bad ones among them, that wait while the device is busy."""
    board = Board(library, tmp_path)
    slow = {"exclusive_us": 150_000}
    write_model(board.model, {"name": "four", "batch": 4}, **slow)
    answers = {
        camera: robot.collect(messages.Classification, f"/board/{camera}/classification")
        for camera in ("left", "right")
    }
    received = robot.collect(DiagnosticArray, "/diagnostics")
    settings = {"cameras": "[left, right]", "workers": 1, "queue_depth": 8, "qos_depth": 20}
    with board.run(
        class_id="index", qos_reliability="reliable", diagnostics_period=0.2, **settings
    ):
        publishers = {camera: robot.publisher(f"{camera}/image") for camera in answers}
        sent: dict[str, dict[int, np.ndarray]] = {camera: {} for camera in answers}
        for stamp in range(1, 7):
            for camera, publisher in publishers.items():
                message, data = nv12_message(stamp, seed=2 * stamp + (camera == "left"))
                if stamp == 3:
                    message.step = 1
                else:
                    sent[camera][stamp] = data
                publisher.publish(message)
        wait_until(lambda: all(len(answers[c]) == len(sent[c]) for c in sent), "all answers")
        for camera, frames in sent.items():
            assert [answer.header.stamp.sec for answer in answers[camera]] == list(frames)
            for answer, data in zip(answers[camera], frames.values()):
                best = top_k(hash_logits(data, 1000), 5)
                named = [result.class_id for result in messages.results(answer)]
                assert named == [str(index) for index, _ in best]

        def refused(camera: str) -> int:
            told = statuses(received, f"board: {camera}")
            values = [{v.key: v.value for v in status.values} for status in told]
            return sum(int(value["frames refused"]) for value in values)

        wait_until(lambda: refused("left") == refused("right") == 1, "the refused frames")
    board.assert_clean()
    # Two were made to open the model; most of the ten frames had company.
    assert board.left()["inferences"] - 2 <= 6


def test_the_model_is_swapped_for_one_of_another_family(
    robot: Robot, board: Board, tmp_path: Path
) -> None:
    """By its name in the catalogue; a wrong name gets the nearest."""
    for name in ("100", "repvit_m0_9"):
        stand_in = tmp_path / "store" / MODELS[name].file_name("bin")
        stand_in.parent.mkdir(exist_ok=True)
        record(write_model(stand_in, **timings(name)))  # a store checks no file again that it knows
    environment = {**board.environment, "REPGHOST_HOME": str(tmp_path / "store")}
    with running_node(*NAMED, env=environment, backend="bpu", model="100"):
        publisher = robot.publisher("board_image")
        robot.answer(publisher, nv12_message(1)[0])
        refused = robot.set_parameter("model", "RepViT-m0.9")
        assert not refused.successful
        assert "did you mean 'repvit_m0_9'" in refused.reason
        assert robot.set_parameter("model", "repvit_m0_9").successful
        robot.answer(publisher, nv12_message(2)[0])
        assert robot.set_parameter("model", "100").successful
        robot.answer(publisher, nv12_message(3)[0])
    board.assert_clean()


def test_a_failing_bpu_is_reopened_and_recovers(robot: Robot, board: Board) -> None:
    with board.run(diagnostics_period=0.2) as node:
        publisher = robot.publisher("board_image")
        received = robot.collect(DiagnosticArray, "/diagnostics")
        robot.answer(publisher, nv12_message(1)[0])
        inject(board.control, ("run", -6000001, 3))
        stamps = iter(range(2, 10**6))

        def failed() -> bool:
            found = statuses(received, "board: image")
            return any(s.level == DiagnosticStatus.ERROR for s in found)

        publish_until(robot, publisher, failed, stamps)
        wait_until(lambda: "reopening the model" in node.output(), "the reopening")
        robot.answer(publisher, nv12_message(next(stamps))[0])
        received.clear()
        publish_until(
            robot,
            publisher,
            lambda: any(
                s.level in (DiagnosticStatus.OK, DiagnosticStatus.WARN)
                for s in statuses(received, "board: image")
            ),
            stamps,
        )
    board.assert_clean()


def test_a_hanging_bpu_is_given_up_and_reopened(robot: Robot, board: Board) -> None:
    with board.run(bpu_timeout=60.0, watchdog=0.3, workers=2) as node:
        publisher = robot.publisher("board_image")
        robot.answer(publisher, nv12_message(1)[0])
        inject(board.control, ("hang", 2000, 1))
        publisher.publish(nv12_message(2)[0])
        wait_until(lambda: "the backend hangs" in node.output(), "the watchdog")
        robot.answer(publisher, nv12_message(3)[0])


def test_a_hang_that_reopening_cannot_end_is_an_error(robot: Robot, board: Board) -> None:
    with board.run(bpu_timeout=60.0, watchdog=0.3, workers=1, diagnostics_period=0.1):
        received = robot.collect(DiagnosticArray, "/diagnostics")
        publisher = robot.publisher("board_image")
        robot.answer(publisher, nv12_message(1)[0])
        inject(board.control, ("hang", 3000, 1), ("load", -6000002, 1))
        publisher.publish(nv12_message(2)[0])

        def told(level: bytes, message: str) -> bool:
            models = statuses(received, "board: model")
            return any(s.level == level and message in s.message for s in models)

        wait_until(lambda: told(DiagnosticStatus.ERROR, "cannot be reopened yet"), "the error")
        received.clear()
        wait_until(lambda: told(DiagnosticStatus.OK, "active"), "the next attempt's success")
        robot.answer(publisher, nv12_message(3)[0])


def test_a_node_that_was_deactivated_in_a_hang_comes_back(robot: Robot, board: Board) -> None:
    with board.run(bpu_timeout=60.0, watchdog=0.5, workers=1):
        publisher = robot.publisher("board_image")
        robot.answer(publisher, nv12_message(1)[0])
        inject(board.control, ("hang", 2000, 1))
        publisher.publish(nv12_message(2)[0])
        assert robot.change_state(4)
        assert robot.change_state(3)
        robot.forget_publishers()
        robot.answer(robot.publisher("board_image"), nv12_message(3)[0])


def test_a_board_that_cannot_load_is_retried_by_the_lifecycle(robot: Robot, board: Board) -> None:
    inject(board.control, ("load", -6000002, 1))
    with board.run(diagnostics_period=0.1) as node:
        received = robot.collect(DiagnosticArray, "/diagnostics")
        wait_until(lambda: "cannot be loaded" in node.output(), "the refusal")
        wait_until(
            lambda: any(
                s.level == DiagnosticStatus.ERROR and "cannot be loaded" in s.message
                for s in statuses(received, "board: model")
            ),
            "the same in the diagnostics",
        )
        assert robot.state() == "unconfigured"
        assert robot.change_state(1)
        assert robot.change_state(3)
        robot.answer(robot.publisher("board_image"), nv12_message(1)[0])
    board.assert_clean()


def test_the_shipped_demo_model_is_run_by_the_bpu(robot: Robot, board: Board) -> None:
    with running_node(*NAMED, env=board.environment, emulated=True, backend="bpu") as node:
        publisher = robot.publisher("board_image")
        for stamp, label in enumerate(("stop", "yield", "roundabout"), start=1):
            picture = render(label, np.random.default_rng(stamp), 320, 240)
            results = messages.results(robot.answer(publisher, image(picture, stamp)))
            assert results[0].class_id == label
        assert "demo_224x224_nv12.bin" in node.output()
    assert board.left()["inferences"] >= 3
    board.assert_clean()
