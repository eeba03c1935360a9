# SPDX-License-Identifier: Apache-2.0
"""The vendor's predictions: what is written about them, and how they are gathered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import estimates
from bench.estimates import Estimate, Variant, estimate, page, plot, read
from repghost_ros.backends.toolchain import Toolchain
from repghost_ros.convert.calibration import Calibration
from repghost_ros.convert.compilation import Job, SpeedEstimate
from repghost_ros.errors import ConversionError
from repghost_ros.zoo.catalogue import MODELS, REPGHOST

pytest.importorskip("onnx")
TOOLCHAIN = Toolchain(Path("bin"), Path("python"), "3.49.15")


def test_the_catalogue_has_what_was_predicted() -> None:
    known = {}
    for size, model in MODELS.items():
        if model.predicted.published_us is not None:
            known[size, "as exported"] = model.predicted.published_us
        for batch, latency_us in model.predicted.fused_us.items():
            known[size, "fused" if batch == 1 else f"fused, batch {batch}"] = latency_us
    assert known == {(each.size, each.variant): each.latency_us for each in read()[0]}
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
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Replace the compiler by a stand-in that records its jobs and refuses cores that the X5 lacks."""
    jobs: list[Job] = []

    def compile_bin(job: Job, _: Toolchain) -> Path:
        jobs.append(job)
        if "core_num: 2" in job.yaml.read_text():
            said = "hb_mapper failed; 'log' ends with:\n  ERROR ***, error message: no such core\n  end"
            raise ConversionError(said)
        job.bin.write_bytes(bytes(1000))
        return job.bin

    model = Path(__file__).parent.parent / "models" / "demo.onnx"
    monkeypatch.setattr(estimates, "CACHE", tmp_path)
    monkeypatch.setattr(estimates, "float_model", lambda *_: model)
    monkeypatch.setattr(estimates, "compile_bin", compile_bin)
    monkeypatch.setattr(estimates, "prediction", lambda _: SpeedEstimate(500.0, 2000.0, 10**6))
    return jobs


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


def test_an_interrupted_run_goes_on(tmp_path: Path, compiled: list[Job]) -> None:
    variant = Variant("fused")
    first = estimate("100", variant, calibrated(tmp_path), TOOLCHAIN)
    assert first == Estimate("100", "fused", 1, 500.0, 2000.0, 10**6, 1000)
    assert estimate("100", variant, calibrated(tmp_path), TOOLCHAIN) == first
    assert len(compiled) == 1
    changed = Variant("fused", options={"compiler_parameters": {"optimize_level": "O0"}})
    estimate("100", changed, calibrated(tmp_path), TOOLCHAIN)
    assert len(compiled) == 2
    assert "optimize_level: O0" in compiled[1].yaml.read_text()


def test_what_is_refused_is_said(tmp_path: Path, compiled: list[Job]) -> None:
    variant = Variant("two", options={"compiler_parameters": {"core_num": 2}})
    found = estimate("100", variant, calibrated(tmp_path), TOOLCHAIN)
    assert (found.latency_us, found.refused) == (None, "no such core")
    assert json.loads((tmp_path / "100_two" / "estimate.json").read_text())["estimate"]["refused"]
