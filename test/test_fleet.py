# SPDX-License-Identifier: Apache-2.0
"""Many bags and long lists, on processes and on a real Ray cluster: the same files everywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from helpers.bags import sign_bag
from helpers.waiting import WAIT

from repghost_ros.cli import main
from repghost_ros.engine.model import ModelSpec
from repghost_ros.errors import FleetError, OutputError, SourceError
from repghost_ros.runs import fleet as fleet_module
from repghost_ros.runs import many
from repghost_ros.runs.answers import read_results
from repghost_ros.runs.fleet import LocalFleet, open_fleet
from repghost_ros.runs.many import find_bags, replay_many
from repghost_ros.runs.replay import ReplayOptions
from repghost_ros.runs.shared_model import SharedModel
from repghost_ros.sources import remote
from repghost_ros.sources.signs import LABELS, render

FRAMES = (30, 12, 21)
DEMO = ("--model", "demo")


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder of bags of several kinds, one of which is broken."""
    folder = tmp_path_factory.mktemp("fleet") / "drives"
    for number, (frames, storage) in enumerate(zip(FRAMES, ("mcap", "sqlite3", "mcap"))):
        sign_bag(folder / f"day{number}" / "drive", frames, storage=storage)
    (folder / "broken.mcap").write_bytes(b"no bag")
    return folder


@pytest.fixture(scope="module")
def expected(drives: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files written by a fleet of two local processes."""
    out = tmp_path_factory.mktemp("expected")
    fleet = LocalFleet(2)
    try:
        replay_many(find_bags([str(drives)]), out, ModelSpec("demo"), fleet, ReplayOptions())
    finally:
        fleet.close()
    return written(out)


def written(out: Path) -> dict[str, bytes]:
    files = (file for file in out.iterdir() if file.suffix in (".jsonl", ".csv", ".json"))
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "PART", 10)


def test_every_bag_has_a_result_and_a_broken_one_costs_itself_alone(
    drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["replay", str(drives), *DEMO, "--out", str(out), "--json"]
    assert main(command) == 1
    told = json.loads(capsys.readouterr().out)
    assert [row["frames"] for row in told["results"]] == [0, *FRAMES]
    assert "broken.mcap" in told["results"][0]["error"]
    for row, frames in zip(told["results"][1:], FRAMES):
        answers = read_results(out / row["result"])
        assert len(answers) == frames
        # As one bag by itself.
        alone = tmp_path / "alone.jsonl"
        assert main(["replay", row["bag"], *DEMO, "--out", str(alone)]) == 0
        assert alone.read_bytes() == (out / row["result"]).read_bytes()


def test_labels_of_any_form_reach_the_workers(tmp_path: Path) -> None:
    labels = tuple(f"{index} - {label}" for index, label in enumerate(LABELS))
    (tmp_path / "labels.json").write_text(json.dumps(["[none]", *labels[1:]]))
    fleet = LocalFleet(1)
    try:
        with ModelSpec("demo", labels_path=str(tmp_path / "labels.json")).open() as model:
            sent = SharedModel.of(model, fleet)
        (worker,) = fleet.run(_labels_of, [sent])
    finally:
        fleet.close()
    assert worker[1] == ("[none]", *labels[1:])


def _labels_of(model: SharedModel) -> tuple[str, ...]:
    return model.open().labels


def test_what_is_done_is_not_done_again(drives: Path, tmp_path: Path) -> None:
    bags = find_bags([str(drives / "day0"), str(drives / "day1")])
    asked: list[int] = []

    class Counting(LocalFleet):
        def run(self, function: Any, tasks: Any) -> Iterator[Any]:
            if function is many.answer_part:
                asked.append(len(tasks))
            return super().run(function, tasks)

    for options in (ReplayOptions(), ReplayOptions(), ReplayOptions(topic="/camera/image_raw")):
        fleet = Counting(1)
        try:
            replay_many(bags, tmp_path / "out", ModelSpec("demo"), fleet, options)
        finally:
            fleet.close()
    assert asked == [3 + 2, 0, 3 + 2]  # all parts; none; all, as the options are others


def test_a_comparison_finds_the_bag_that_changed(
    drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bags = [str(drives / f"day{number}" / "drive") for number in range(3)]
    assert main(["replay", *bags, *DEMO, "--out", str(tmp_path / "old")]) == 0
    changed = tmp_path / "old" / "drive_2.jsonl"
    changed.write_text(changed.read_text().replace('"class_id": "stop"', '"class_id": "go"'))
    command = ["replay", *bags, *DEMO, "--compare", str(tmp_path / "old"), "--json"]
    capsys.readouterr()
    assert main([*command, "--out", str(tmp_path / "new")]) == 1
    rows = json.loads(capsys.readouterr().out)["results"]
    assert [row["agreement"] == 1.0 for row in rows] == [True, False, True]


def test_a_worker_that_is_killed_is_replaced(
    drives: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    fleet = LocalFleet(2)
    killed = threading.Event()

    def kill(done: int, total: int) -> None:
        if done and not killed.is_set():
            killed.set()
            assert fleet._pool is not None
            os.kill(next(iter(fleet._pool._processes)), signal.SIGKILL)

    try:
        bags = find_bags([str(drives)])
        replay_many(bags, tmp_path, ModelSpec("demo"), fleet, ReplayOptions(), progress=kill)
    finally:
        fleet.close()
    assert killed.is_set()
    assert written(tmp_path) == expected


def test_a_task_that_always_kills_its_worker_is_given_up() -> None:
    fleet = LocalFleet(1)
    try:
        ((number, value),) = fleet.run(os._exit, [3])
    finally:
        fleet.close()
    assert number == 0
    assert isinstance(value, FleetError)


def test_two_runs_do_not_share_a_folder(drives: Path, tmp_path: Path) -> None:
    fleet = LocalFleet(1)
    try:
        with many._only_run(tmp_path), pytest.raises(OutputError, match="another run"):
            replay_many(
                [str(drives / "day0" / "drive")],
                tmp_path,
                ModelSpec("demo"),
                fleet,
                ReplayOptions(),
            )
    finally:
        fleet.close()


def test_an_interrupt_ends_the_workers(drives: Path, tmp_path: Path) -> None:
    sign_bag(tmp_path / "long", 600)
    command = [sys.executable, "-m", "repghost_ros.cli", "replay", str(tmp_path / "long"), *DEMO]
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*command, "--on", "local", "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + WAIT
    while not (out / ".lock").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(WAIT) == 130
    assert process.stderr is not None
    assert process.stderr.read().splitlines()[-1] == "repghost: interrupted"
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        left = subprocess.run(
            ["pgrep", "-a", "-s", str(process.pid)], capture_output=True, text=True
        )
        if not left.stdout:
            break
        time.sleep(0.05)
    assert not left.stdout


def test_lists_folders_and_urls_are_taken(drives: Path, tmp_path: Path) -> None:
    names = [str(drives / f"day{number}" / "drive") for number in range(2)]
    (tmp_path / "list.txt").write_text("\n".join([*names, "", names[0]]))
    assert find_bags([str(tmp_path / "list.txt")]) == names
    assert find_bags([str(drives)])[1:3] == names
    with pytest.raises(SourceError, match="holds no bags"):
        find_bags([str(tmp_path)])
    with pytest.raises(SourceError, match="does not exist"):
        find_bags([str(tmp_path / "absent")])


def test_bags_of_a_storage_service_are_fetched_once(
    drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(drives / "day0" / "drive"), "/fleet/drive", recursive=True)
    (url,) = find_bags(["memory://fleet"])
    copy = remote.local_copy(url, tmp_path)
    assert {file.name for file in copy.iterdir()} == {"drive.mcap", "metadata.yaml"}
    monkeypatch.setattr(type(memory), "get", None)  # a second time would fail
    assert remote.local_copy(url, tmp_path) == copy


class Bucket(SimpleHTTPRequestHandler):
    """Files over HTTP; it forgets who may read those whose names are in `refused`."""

    refused: ClassVar[set[str]] = set()

    def send_head(self) -> Any:
        if Path(self.path).name in self.refused:
            self.send_error(403, "credentials have expired")
            return None
        return super().send_head()

    def log_message(self, *_: Any) -> None:
        pass


def test_storage_that_loses_its_credentials_costs_the_bags_it_refuses(
    drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "bucket").mkdir()
    for number in (0, 2):
        bag = drives / f"day{number}" / "drive" / "drive.mcap"
        shutil.copy(bag, tmp_path / "bucket" / f"day{number}.mcap")
    handler = partial(Bucket, directory=str(tmp_path / "bucket"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    urls = [f"http://127.0.0.1:{server.server_address[1]}/day{number}.mcap" for number in (0, 2)]
    command = ["replay", *urls, *DEMO, "--out", str(tmp_path / "out"), "--json"]
    Bucket.refused = {"day2.mcap"}
    try:
        assert main(command) == 1
        one, other = json.loads(capsys.readouterr().out)["results"]
        assert (one["frames"], one["error"]) == (FRAMES[0], "")
        assert urls[1] in other["error"]
        assert "403" in other["error"]
        Bucket.refused = set()
        assert main(command) == 0
        rows = json.loads(capsys.readouterr().out)["results"]
        assert [row["frames"] for row in rows] == [FRAMES[0], FRAMES[2]]
    finally:
        Bucket.refused = set()
        server.shutdown()


def test_storage_that_refuses_is_named(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(SourceError, match="'memory://absent/drive.bag' cannot be fetched"):
        remote.local_copy("memory://absent/drive.bag", tmp_path)
    with pytest.raises(SourceError, match="nonsense://x"):
        remote.local_copy("nonsense://x", tmp_path)


def test_parquet_is_queried_by_class(drives: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out"
    command = ["replay", str(drives / "day0"), *DEMO, "--out", str(out), "--format", "parquet"]
    assert main(command) == 0
    rows = parquet.read_table(out / "drive.parquet", filters=[("rank", "=", 1)]).to_pylist()
    assert len(rows) == FRAMES[0]
    assert {row["class_id"] for row in rows} <= set(LABELS)
    assert read_results(out / "drive.parquet")[0].results[0].class_id == rows[0]["class_id"]


def test_the_queries_of_the_docs(drives: Path, tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    command = ["replay", str(drives), *DEMO, "--out", str(tmp_path / "results")]
    assert main([*command, "--format", "parquet"]) == 1  # one bag is broken
    docs = Path(__file__).parent.parent / "docs" / "fleet.md"
    (program,) = re.findall(r"```python\n(.*?)```", docs.read_text(), re.S)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "drive" in done.stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a Ray cluster of two nodes, both processes of this machine."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install .[fleet]")
    from ray.cluster_utils import Cluster

    root = Path(__file__).parent.parent
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.mark.timeout(300)
def test_a_cluster_writes_the_same_files(
    cluster: Any, drives: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    fleet = open_fleet(cluster.address)
    assert fleet.workers == 2
    try:
        replay_many(find_bags([str(drives)]), tmp_path, ModelSpec("demo"), fleet, ReplayOptions())
    finally:
        fleet.close()
    assert written(tmp_path) == expected


@pytest.mark.timeout(300)
def test_a_cluster_replaces_a_worker_that_is_killed(
    cluster: Any, drives: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    fleet = open_fleet(cluster.address)
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if done and not killed:
            busy = subprocess.run(
                ["pgrep", "-f", "ray::answer_part"], capture_output=True, text=True, check=False
            ).stdout.split()
            for pid in busy[:1]:
                os.kill(int(pid), signal.SIGKILL)
                killed.append(int(pid))

    try:
        bags = find_bags([str(drives)])
        replay_many(bags, tmp_path, ModelSpec("demo"), fleet, ReplayOptions(), progress=kill)
    finally:
        fleet.close()
    assert killed
    assert written(tmp_path) == expected


@pytest.mark.timeout(300)
def test_an_evaluation_is_the_same_on_a_cluster(cluster: Any, tmp_path: Path) -> None:
    for label in LABELS[:4]:
        (tmp_path / "val" / label).mkdir(parents=True)
        for seed in range(3):
            shown = render(label, np.random.default_rng(seed), 224, 224)
            cv2.imwrite(str(tmp_path / "val" / label / f"{seed}.png"), shown)
    for name, on in (("here", ""), ("local", "local"), ("cluster", cluster.address)):
        command = ["eval", str(tmp_path / "val"), *DEMO, "--out", str(tmp_path / name)]
        assert main([*command, *(("--on", on) if on else ())]) == 0
    here, local, there = (
        (tmp_path / name / "predictions.csv").read_bytes() for name in ("here", "local", "cluster")
    )
    assert here == local == there


def test_a_cluster_of_another_version_is_refused(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "__version__", "0.0.1")  # here, and not in the workers
    with pytest.raises(FleetError, match=r"has repghost_ros .* here are 0\.0\.1"):
        open_fleet(cluster.address)


def test_a_cluster_that_cannot_be_reached_is_named() -> None:
    pytest.importorskip("ray")
    with pytest.raises(FleetError, match=r"'127.0.0.1:9' cannot be reached"):
        open_fleet("127.0.0.1:9")
    with pytest.raises(FleetError, match="'moon' is not a fleet"):
        open_fleet("moon")
