# SPDX-License-Identifier: Apache-2.0
"""Each write, rename and fsync of what writes files fails or is its last: nothing is half-written.

Large allocations fail likewise. Afterwards every file is as before or whole, and a rerun completes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
from helpers.faulty import COMPILER, NOT_REACHED, Faulty
from helpers.server import MODEL, Archive

from repghost_ros.backends.toolchain import MAPPER
from repghost_ros.paths import share
from repghost_ros.sources.signs import render

pytest.importorskip("onnxruntime")
bags = pytest.importorskip("helpers.bags")
toys = pytest.importorskip("helpers.toys")
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C compiler is installed"),
    pytest.mark.timeout(600),
]
DEMO = share() / "models" / "demo.onnx"
NEVER = 10**9
MOST = int(os.environ.get("REPGHOST_INTERRUPTIONS", 5))
"""Calls interrupted of one command; of more, the first, the last, and some in between."""
MOST_ALLOCATIONS = MOST // 2
EARLIER = b"an earlier file"
APPENDED = ("collected.jsonl", "predictions.csv")
"""Written line by line, so that a run that was killed can go on: a beginning of the whole."""
PART = ".part"
"""What has been received of a download."""
STATE = ".finetune.pt"
"""What a training goes on from; a ZIP file, removed at its end."""
ENDS = {".csv": b"\n", ".html": b"</html>\n", ".parquet": b"PAR1", ".png": b"IEND\xaeB`\x82"}
"""The last bytes of a whole file."""


class Writer(NamedTuple):
    """A command that writes files.

    Args:
        command: its words; `{out}` is the folder that it writes to, the others are inputs.
        replaces: a file there that an earlier run wrote.
        holds: an input whose files are there before.
        needs: a module without which it cannot run.

    """

    command: tuple[str, ...]
    replaces: str = ""
    holds: str = ""
    needs: str = "onnx"


MANY = """
from pathlib import Path
from repghost_ros.engine.model import ModelSpec
from repghost_ros.runs.fleet import LocalFleet
from repghost_ros.runs.many import ReplayOptions, replay_many

class InThisProcess(LocalFleet):
    def run(self, function, tasks):
        return ((number, function(task)) for number, task in enumerate(tasks))

fleet = InThisProcess(1)
replay_many(["{bag}"], Path("{out}"), ModelSpec(), fleet, ReplayOptions(""))
fleet.close()
"""
LABEL = """
from pathlib import Path
from repghost_ros.teach.labeling import Labeling

labeling = Labeling(Path("{out}"))
for undone in (True, False):
    while shown := labeling.state()["picture"]:
        labeling.label(shown, "stop")
    if undone:
        labeling.undo()
"""
ADOPT = """
import shutil
from pathlib import Path
from repghost_ros.zoo.store import ModelStore

given = Path("{scratch}/given.onnx")
shutil.copy("{onnx}", given)
ModelStore(Path("{out}")).adopt("mine", "onnx", given)
"""
DOWNLOAD = """
from pathlib import Path
from repghost_ros.zoo.store import ModelStore

ModelStore(Path("{out}"), "{archive}").fetch("100", "onnx")
"""
LABEL_WATCHED = """
from pathlib import Path
from repghost_ros.engine.results import Result
from repghost_ros.sources.pictures import read_image
from repghost_ros.teach.keeping import Keeper

keeper = Keeper(Path("{out}"), "camera")
for number in range(4):
    frame = read_image(Path("{classes}", "stop", f"{{number}}.png"))
    keeper.label(frame, (Result("stop", 0.5),), number, "stop")
"""
TIMINGS = """
from pathlib import Path
from repghost_ros.runs.benchmark import Timing, write_csv

write_csv(Path("{out}/timings.csv"), [Timing("demo", "measured", "onnx", "inference", 1.1, 1, 2.5)])
"""
CERTIFY = """
import os
from pathlib import Path
from repghost_ros.backends.onnx import OnnxBackend
from repghost_ros.backends.toolchain import Toolchain
from repghost_ros.cli import main, quantize
from repghost_ros.convert import certificate

os.environ["REPGHOST_HOME"] = "{out}/store"
scratch = Path("{scratch}")
quantize.find_toolchain = lambda: Toolchain(scratch, scratch, "")
certificate.QuantizedBackend = OnnxBackend
certificate._prove = lambda *_: (4, 0.0)
words = ["--calibration", "{classes}", "--samples", "2", "--skip", "int8", "--methods", "default"]
assert main(["quantize", "demo", *words, "--out", "{out}", "--store", "mine"]) == 0
"""
"""With a compiler that takes no time, see `compiler`, and without the simulator."""
QUANTIZE = ("quantize", "{small}", "--calibration", "{classes}", "--samples", "2", "--out", "{out}")
REPLAY = ("replay", "{bag}", "--model", "demo")
TEACH = ("teach", "{classes}", "--model", "{small}", "--out", "{out}/own.onnx")
FINETUNE = ("--finetune", "--epochs", "2", "--resize", "stretch")
WRITERS = {
    "csv": Writer((*REPLAY, "--out", "{out}/results.csv"), "results.csv"),
    "jsonl": Writer((*REPLAY, "--out", "{out}/results.jsonl"), "results.jsonl"),
    "parquet": Writer(
        (*REPLAY, "--out", "{out}/results.parquet"), "results.parquet", needs="pyarrow"
    ),
    "mcap": Writer((*REPLAY, "--out", "{out}/answers")),
    "sqlite3": Writer((*REPLAY, "--out", "{out}/answers", "--storage", "sqlite3")),
    "report": Writer((*REPLAY, "--report", "{out}/report.html"), "report.html"),
    "many": Writer(("-c", MANY)),
    "export": Writer(("export", "demo", "--fold-preprocess", "--out", "{out}/f.onnx"), "f.onnx"),
    "pictures": Writer(("classify", "{pictures}", "--model", "demo", "--save", "{out}"), "0.png"),
    "video": Writer(("classify", "{video}", "--model", "demo", "--save", "{out}"), "film.mp4"),
    "collect": Writer(("collect", "{video}", "--random", "1", "--out", "{out}")),
    "eval": Writer(
        ("eval", "{classes}", "--model", "demo", "--out", "{out}", "--report", "{out}/eval.html"),
        "per_class.csv",
    ),
    "label": Writer(("-c", LABEL), holds="pictures"),
    "signs": Writer(("signs", "{out}"), "stop/0.png"),
    "adopt": Writer(("-c", ADOPT), "own/mine.onnx"),
    "download": Writer(("-c", DOWNLOAD)),
    "quantize": Writer((*QUANTIZE, "--prepare"), "small.yaml"),
    "certificate": Writer(("-c", CERTIFY), "certificate.json"),
    "teach": Writer((*TEACH, "--report", "{out}/report.html"), "own.onnx"),
    "finetune": Writer((*TEACH, *FINETUNE), needs="torch"),
    "watch": Writer(("-c", LABEL_WATCHED)),
    "fuse": Writer(("fuse", "{onnx}", "{out}/fused.onnx"), "fused.onnx"),
    "timings": Writer(("-c", TIMINGS), "timings.csv"),
    "plot": Writer(("models", "--plot", "{out}/zoo.png"), "zoo.png", needs="matplotlib"),
}
MEMORY = ("csv", "parquet", "report", "pictures", "eval", "plot")
"""Writers of what ENDS knows, whose large allocations fail."""


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    with Archive() as archive:
        threading.Thread(target=archive.serve_forever, args=(0.01,), daemon=True).start()
        yield archive
        archive.shutdown()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, archive: Archive) -> dict[str, Any]:
    """Make what the commands read, and the folder that they write to."""
    root = tmp_path_factory.mktemp("faulty")
    names = ("pictures", "classes/stop", "classes/yield", "out", "scratch")
    for name in names:
        (root / name).mkdir(parents=True)
    for number in range(5):
        for name in ("stop", "yield"):
            picture = render(name, np.random.default_rng([number, len(name)]), 64, 64)
            cv2.imwrite(str(root / "classes" / name / f"{number}.png"), picture)
    for number in range(2):
        shutil.copy(root / f"classes/stop/{number}.png", root / "pictures")
    size = (bags.WIDTH, bags.HEIGHT)
    writer = cv2.VideoWriter(str(root / "film.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, size)
    for _, picture in bags.film(4):
        writer.write(picture)
    writer.release()
    compiler(root / "scratch")
    return {
        **{name.split("/")[0]: root / name.split("/")[0] for name in names},
        "bag": bags.sign_bag(root / "drive", 2),
        "video": root / "film.mp4",
        "onnx": DEMO,
        "small": toys.write_small_network(root / "small.onnx"),
        "archive": archive.url,
    }


def compiler(folder: Path) -> None:
    """Write a program that leaves what the vendor's compiler would, of the demo model."""
    made, name = folder / "made", "demo_224x224_nv12"
    made.mkdir()
    shutil.copy(DEMO.with_name(f"{name}.bin"), made)
    shutil.copy(DEMO, made / f"{name}_quantized_model.onnx")
    predicted = {"latency (us)": 337, "FPS": 2966, "DDR bytes per frame": 1}
    (made / "demo_subgraph_0.json").write_text(json.dumps({"summary": predicted}))
    program = folder / MAPPER
    program.write_text(f"#!/bin/sh\ncp -r {made} {name}\n")
    program.chmod(0o755)


@pytest.fixture(scope="module")
def faulty(inputs: dict[str, Any]) -> Iterator[Faulty]:
    with Faulty(inputs["out"], inputs["scratch"]) as process:
        yield process


def files(out: Path) -> dict[str, Any]:
    """Return what is the same in every run of a command: content, rows of a page, size of a video.

    Hidden files are nobody's data.
    """
    found: dict[str, Any] = {}
    for path in sorted(each for each in out.rglob("*") if each.is_file()):
        name = str(path.relative_to(out))
        if any(part.startswith(".") for part in path.relative_to(out).parts):
            continue
        content = path.read_bytes()
        if path.name == APPENDED[0]:  # but not how far each run came, nor twice what two labeled
            lines = dict.fromkeys(each for each in content.splitlines(True) if b'"file"' in each)
            content = b"".join(lines)
        found[name] = content.count(b"<tr>") if name.endswith(".html") else content
        if content == EARLIER:
            found[name] = EARLIER
    return found


def spread(calls: int, most: int) -> list[int]:
    """Return numbers from 1 to `calls`, all or `most` of them."""
    return sorted({round(each) for each in np.linspace(1, calls, min(calls, most))})


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, how) for name in WRITERS for how in ("fail", "kill")),
        *((name, "memory") for name in MEMORY),
    ],
)
def test_no_file_is_half_written(
    name: str, how: str, faulty: Faulty, inputs: dict[str, Any], archive: Archive
) -> None:
    writer, out = WRITERS[name], inputs["out"]
    if find_spec(writer.needs) is None:
        pytest.skip(f"{writer.needs} is not installed")
    command = [word.format(**inputs) for word in writer.command]

    def run(nth: int, how: str) -> tuple[int, int]:
        return faulty.run(nth, how, command)

    def begin() -> None:
        shutil.rmtree(out)
        out.mkdir()
        if writer.holds:
            shutil.copytree(inputs[writer.holds], out, dirs_exist_ok=True)
        if writer.replaces:
            (out / writer.replaces).parent.mkdir(exist_ok=True)
            (out / writer.replaces).write_bytes(EARLIER)

    begin()
    before = files(out)
    code, calls = run(NEVER, how)
    assert code == NOT_REACHED
    whole = files(out)
    assert whole != before
    assert calls >= 2
    assert EARLIER not in whole.values()
    for nth in spread(calls, MOST_ALLOCATIONS if how == "memory" else MOST):
        begin()
        code, _ = run(nth, how)
        left = files(out)
        if how == "memory":  # a frame may be refused for want of it, and C++ may give up
            assert code in (0, 1, NOT_REACHED, -signal.SIGABRT), nth
            for path in left:
                if ".partial." not in path and left[path] != EARLIER:
                    assert (out / path).read_bytes().endswith(ENDS[Path(path).suffix]), (nth, path)
            begin()
        else:
            if not (how == "fail" and code == 0 and left == whole):  # it found another way
                assert code in ((-signal.SIGKILL,) if how == "kill" else (1, NOT_REACHED)), nth
            for path, content in left.items():
                if path.endswith(APPENDED):
                    assert whole[path].startswith(content), (nth, path)
                elif path.endswith((PART, f"{PART}.etag")):
                    sent = archive.body if path.endswith(PART) else str(archive.etag).encode()
                    assert sent.startswith(content), (nth, path)
                elif path.endswith(STATE):
                    assert ZipFile(BytesIO(content)).testzip() is None, (nth, path)
                elif ".partial." not in path:  # which replay keeps, and says so
                    assert content in (before.get(path), whole.get(path)), (nth, path)
        assert run(NEVER, how)[0] == NOT_REACHED, f"a rerun completes after {nth}"
        assert files(out) == whole, nth
        assert not list(out.rglob(".*partial*")), nth


@pytest.mark.parametrize("how", ["fail", "kill"])
def test_a_resumed_download_is_never_mixed_with_other_content(
    how: str, faulty: Faulty, inputs: dict[str, Any], archive: Archive
) -> None:
    out = inputs["out"]
    command = ["-c", DOWNLOAD.format(**inputs)]

    def begin() -> None:
        shutil.rmtree(out)
        out.mkdir()
        archive.body, archive.etag = MODEL, '"one"'
        (out / "repghostnet_100.onnx.part").write_bytes(MODEL[: len(MODEL) // 2])
        (out / "repghostnet_100.onnx.part.etag").write_text('"one"')

    begin()
    code, calls = faulty.run(NEVER, how, command)
    assert code == NOT_REACHED
    for nth in range(1, calls + 1):
        begin()
        faulty.run(nth, how, command)
        if (out / "repghostnet_100.onnx").exists():
            continue
        archive.body, archive.etag = MODEL[:16] + MODEL[:15:-1], '"two"'
        assert faulty.run(NEVER, how, command)[0] == NOT_REACHED, nth
        assert (out / "repghostnet_100.onnx").read_bytes() == archive.body, nth
