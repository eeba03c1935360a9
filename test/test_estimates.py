# SPDX-License-Identifier: Apache-2.0
"""The vendor's predictions: what is written about them, and how they are gathered."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import estimates
from bench.estimates import Estimate, Variant, estimate, page, plot, read
from repghost_ros.backends.toolchain import Toolchain
from repghost_ros.convert.calibration import Calibration
from repghost_ros.paths import share
from repghost_ros.zoo.catalogue import MODELS, REPGHOST

pytest.importorskip("onnx")

# It compiles nothing, leaves the files that hb_mapper leaves, and refuses cores that the X5 lacks.
MAPPER = f"""\
#!{sys.executable}
import json, sys, time
from pathlib import Path
import yaml
config = yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
compiler, model = config["compiler_parameters"], config["model_parameters"]
with open("levels", "a") as levels:
    print(compiler["optimize_level"], file=levels)
if compiler.get("core_num") == 2:
    print("ERROR ***, error message: no such core\\nend")
    sys.exit(1)
work, prefix = Path(model["working_dir"]), model["output_model_file_prefix"]
work.mkdir()
if compiler["optimize_level"] == "O1":
    time.sleep(60)
(work / f"{{prefix}}.bin").write_bytes(bytes(1000))
summary = {{"latency (us)": 500.0, "FPS": 2000.0, "DDR bytes per frame": 10**6}}
(work / f"{{prefix}}_subgraph_0.json").write_text(json.dumps({{"summary": summary}}))
"""


def test_the_catalogue_has_what_was_predicted() -> None:
    known = {}
    for size, model in MODELS.items():
        if model.predicted.exported_us is not None:
            known[size, "as exported"] = model.predicted.exported_us
        for batch, latency_us in model.predicted.fused_us.items():
            known[size, "fused" if batch == 1 else f"fused, batch {batch}"] = latency_us
    compiled = [each for each in read()[0] if not each.refused]
    assert known == {(each.size, each.variant): each.latency_us for each in compiled}
    assert {size for size, _ in known} <= set(estimates.ESTIMATED)


def test_the_page_has_the_figures() -> None:
    assert estimates.PAGE.read_text(encoding="utf-8") == page(*read())


def test_the_predictions_are_near_what_is_published() -> None:
    for each in read()[0]:
        compared = "as exported" if each.size in REPGHOST else "fused"
        published = MODELS[each.size].published
        if published and each.variant == compared:
            assert each.fps == pytest.approx(published.fps, rel=0.1)


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot(read()[0], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture
def toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toolchain:
    """Install a compiler of our own, and compile the demo model, for RepGhost needs torch."""
    program = tmp_path / "bin" / "hb_mapper"
    program.parent.mkdir()
    program.write_text(MAPPER)
    program.chmod(0o755)
    monkeypatch.setattr(estimates, "CACHE", tmp_path)
    monkeypatch.setattr(estimates, "float_model", lambda *_: share() / "models" / "demo.onnx")
    return Toolchain(program.parent, Path(sys.executable), "3.49.15")


def calibrated(folder: Path) -> Calibration:
    return Calibration(
        folder=folder,
        tensors=(),
        pictures=(),
        held_out=(),
        skipped=(),
        height=224,
        width=224,
        color_range="full",
    )


def test_an_interrupted_run_goes_on(
    tmp_path: Path, toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found holds for the same graph, options and compiler."""
    variant = Variant("fused")
    first = estimate("100", variant, calibrated(tmp_path), toolchain)
    assert first == Estimate("100", "fused", 1, 500.0, 2000.0, 10**6, 1000)
    levels = tmp_path / "100_fused" / "levels"
    assert levels.read_text() == "O3\n"
    assert estimate("100", variant, calibrated(tmp_path), toolchain) == first
    assert levels.read_text() == "O3\n"
    changed = Variant("fused", options={"compiler_parameters": {"optimize_level": "O0"}})
    estimate("100", changed, calibrated(tmp_path), toolchain)
    assert levels.read_text() == "O3\nO0\n"
    newer = replace(toolchain, compiler="3.50.1")
    estimate("100", changed, calibrated(tmp_path), newer)
    assert levels.read_text() == "O3\nO0\nO0\n"
    other = tmp_path / "other.onnx"
    other.write_bytes((share() / "models" / "demo.onnx").read_bytes() + b"\x32\x00")  # no domain
    monkeypatch.setattr(estimates, "float_model", lambda *_: other)
    estimate("100", changed, calibrated(tmp_path), newer)
    assert levels.read_text() == "O3\nO0\nO0\nO0\n"


def test_what_takes_too_long_is_given_up(
    tmp_path: Path, toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "LIMIT_S", 2)
    variant = Variant("slow", options={"compiler_parameters": {"optimize_level": "O1"}})
    found = estimate("100", variant, calibrated(tmp_path), toolchain)
    assert "not finished after" in found.refused


def test_what_is_refused_is_said(tmp_path: Path, toolchain: Toolchain) -> None:
    variant = Variant("two", options={"compiler_parameters": {"core_num": 2}})
    found = estimate("100", variant, calibrated(tmp_path), toolchain)
    assert (found.latency_us, found.refused) == (None, "no such core")
    assert json.loads((tmp_path / "100_two" / "estimate.json").read_text())["estimate"]["refused"]
