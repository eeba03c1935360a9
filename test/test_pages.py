# SPDX-License-Identifier: Apache-2.0
"""Reports as HTML: they need nothing else, and their figures are right."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from repghost_ros.cli import main
from repghost_ros.convert.calibration import Calibration
from repghost_ros.convert.certificate import Answers, Certificate, Trial, Variant
from repghost_ros.convert.certificate_page import write_certificate_page
from repghost_ros.convert.compilation import METHODS, Job, SpeedEstimate
from repghost_ros.engine.results import Reporting, log_probabilities
from repghost_ros.files import sha256
from repghost_ros.paths import share
from repghost_ros.runs import html
from repghost_ros.runs.evaluation import Evaluated, Prediction
from repghost_ros.runs.pages import write_evaluation, write_replay
from repghost_ros.runs.reliability import fit_temperature, reliability, temperature_interval
from repghost_ros.runs.replay import Best, Summary
from repghost_ros.runs.samples import Sample
from repghost_ros.sources.signs import LABELS, render

pytest.importorskip("matplotlib")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


class Page(HTMLParser):
    """The addresses that a page loads, and the cells of its tables."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.rows: list[list[str]] = []
        self._in_cell = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]
        self._in_cell = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        elif self._in_cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def test_an_evaluation(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "set"
    for index, label in enumerate(LABELS):
        shown = "yield" if label == "stop" else label  # a sure mistake
        (folder / label).mkdir(parents=True)
        picture = render(shown, np.random.default_rng([6, index]), 320, 240)
        cv2.imwrite(str(folder / label / "a.png"), picture)
    command = ["eval", str(folder), "--model", "demo", "--report"]
    assert main([*command, str(tmp_path / "report.txt")]) == 2
    assert "must end in .html" in capsys.readouterr().err
    path = tmp_path / "new" / "report.html"
    assert main([*command, str(path)]) == 0
    page = Page(path)
    assert all(each.startswith(("data:", "#")) for each in page.loaded)
    assert [row[0] for row in page.rows if row[5:] == ["94.12%", "94.12%"]] == ["demo"]
    assert ["stop", "yield", "1"] in page.rows
    assert ["stop", "1", "0.000", "0.000", "0.000"] in page.rows
    assert ["yield", "1", "0.500", "1.000", "0.667"] in page.rows
    text = path.read_text()
    assert text.count("<figcaption>") == 1
    assert "<title>Evaluation of demo</title>" in text
    model = share() / "models" / "demo.onnx"
    about = f"Pictures in {folder}; {model}, SHA-256 {sha256(model)}; repghost_ros "
    assert text.count(about) == 2  # in the head and below the heading
    assert "by resize: stretch (default)" in text
    assert '<img src="data:image/jpeg;base64,' in text
    assert not re.search(r'<img [^>]*alt=""', text)
    assert text.count('<svg role="img" aria-label=') == text.count("<svg ")
    assert "predicted: yield" in text
    assert "17 pictures with 1 mistake are too few" in text
    assert main(["eval", str(folder), "--model", "demo", "--temperature", "1.5"]) == 0


def test_numbers_are_aligned_and_only_long_tables_scroll() -> None:
    rows = [("a <class>", 1, "10.6 ms", None)] * 25
    shown = html.table(("class", "pictures", "latency", "top-1"), rows)
    row = '<tr><td>a &lt;class&gt;</td><td class="number">1</td><td class="number">10.6 ms</td>'
    assert shown.count(row) == 25
    assert "tall" not in shown
    assert 'class="scroll tall"' in html.table(("class", "a", "b", "c"), [*rows, rows[0]])


def test_a_temperature_has_an_interval(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    logits = 3 * rng.normal(size=(300, 10)).astype(np.float32)
    odds = np.exp(logits / 3) / np.exp(logits / 3).sum(axis=1, keepdims=True)
    truth = np.array([rng.choice(10, p=row) for row in odds])
    fitted = fit_temperature(logits, truth)
    low, high = temperature_interval(logits, truth, fitted)
    assert low < fitted < high
    assert low < 3.0 < high  # what they were multiplied by
    again = temperature_interval(np.tile(logits, (4, 1)), np.tile(truth, 4), fitted)
    assert low < again[0] < again[1] < high  # narrower with more pictures
    predictions = [
        Prediction(
            Sample(tmp_path / f"{number}.png", int(shown)),
            tuple(int(index) for index in np.argsort(-row)[:5]),
            0.5,
            log_scores=row,
        )
        for number, (row, shown) in enumerate(zip(logits, truth, strict=True))
    ]
    labels = tuple(f"class {index}" for index in range(10))
    write_evaluation(
        tmp_path / "a.html",
        [Evaluated("m", share() / "models" / "demo.onnx", "r", labels, predictions)],
        "crop",
        tmp_path,
    )
    wanted = f"--temperature {fitted:.2f} (95 % interval {low:.2f} to {high:.2f})"
    assert wanted in (tmp_path / "a.html").read_text()


def test_a_replay_of_a_hundred_classes_can_be_read(tmp_path: Path) -> None:
    summary = Summary()
    for frame in range(3000):
        name = f"class {frame // 30}"
        summary.frames += 1
        summary.classes[name] += 1
        summary.best.append(Best(frame * 10**7, name, 0.5))
    about = {"bag": "<b>", "topic": "http://me:s3cret@camera/?pwd=s3cret", "model_sha256": "1f"}
    write_replay(tmp_path / "a.html", about, summary)
    assert "s3cret" not in (tmp_path / "a.html").read_text()
    assert "topic http://camera/?pwd=***" in (tmp_path / "a.html").read_text()
    page = Page(tmp_path / "a.html")
    assert ["bag", "<b>"] in page.rows
    assert ["class 99", "30", "1", "0.500"] in page.rows
    height = re.search(r'<svg[^>]* height="([\d.]+)pt"', (tmp_path / "a.html").read_text())
    assert height is not None
    assert float(height[1]) < 700


def test_a_temperature_makes_scores_honest() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4000, 10))
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([rng.choice(10, p=row) for row in odds])
    for factor in (0.5, 1.0, 3.0):  # too unsure, right, too sure
        fitted = fit_temperature(factor * logits, truth)
        assert fitted == pytest.approx(factor, rel=0.1)
    hits = logits.argmax(axis=1) == truth
    honest = reliability(odds.max(axis=1).tolist(), hits.tolist())
    assert honest.error < 0.03
    sure = reliability([0.99] * len(hits), hits.tolist())
    assert sure.error == pytest.approx(0.99 - hits.mean(), abs=1e-6)


def test_temperature_scales_logits_and_probabilities_alike() -> None:
    logits = np.array([3.0, 1.0, 0.0], np.float32)
    labels = ("a", "b", "c")
    cool = Reporting(temperature=2.0).results(logits, labels)
    assert [each.class_id for each in cool] == ["a", "b", "c"]
    assert cool[0].score == pytest.approx(np.exp(1.5) / (np.exp(1.5) + np.exp(0.5) + 1))
    given = np.exp(log_probabilities(logits)).astype(np.float32)
    again = Reporting(temperature=2.0).results(given, labels, "none")
    assert [each.score for each in again] == pytest.approx([each.score for each in cool], abs=1e-5)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_printed_table_has_all_rows_and_a_narrow_page_is_not_wider(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    rows = [(f"quantize/a_long_name_of_a_layer_{'x' * 60}_{n}", "10.6 ms") for n in range(400)]
    page = tmp_path / "page.html"
    page.write_text(html.page("Layers", [html.table(("layer", "time"), rows, "Every layer.")]))
    quiet = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"]
    printed = tmp_path / "page.pdf"
    subprocess.run([*quiet, f"--print-to-pdf={printed}", str(page)], check=True, timeout=100)
    assert len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes())) > 10
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe src="{page.name}" width="390" height="800" onload="document.title='
        "'w' + this.contentDocument.documentElement.scrollWidth\"></iframe>"
    )
    allowed = [*quiet, "--allow-file-access-from-files", "--dump-dom", str(frame)]
    dom = subprocess.run(allowed, capture_output=True, text=True, check=True, timeout=100).stdout
    width = re.search(r"<title>w(\d+)</title>", dom)
    assert width is not None, dom
    assert int(width[1]) <= 390


@pytest.mark.parametrize("labeled", [True, False])
def test_a_certificate_says_correct_of_labeled_pictures_only(labeled: bool, tmp_path: Path) -> None:
    """Of three stops the int8 model takes the last for a yield."""
    compiled = tmp_path / "model.bin"
    compiled.write_bytes(b"compiled")
    picture = tmp_path / "stop.png"
    cv2.imwrite(str(picture), render("stop", np.random.default_rng(1), 64, 64))
    samples = (Sample(picture, 0 if labeled else None),) * 3
    of_float = Answers(samples, np.array([[9, 0], [9, 0], [9, 0]], np.float32))
    of_int8 = Answers(samples, np.array([[9, 0], [9, 0], [0, 9]], np.float32))
    variant = Variant(tmp_path / "model.onnx", fused=True)
    trial = Trial(
        variant=variant, method=METHODS["max"], answers=of_int8, agreement=2 / 3, drift=0.3
    )
    certificate = Certificate(
        bin=compiled,
        job=Job(tmp_path, tmp_path / "job.yaml", (), tmp_path, "model"),
        calibration=Calibration(
            folder=tmp_path,
            tensors=(),
            pictures=(picture,),
            held_out=(picture,),
            skipped=(),
            height=64,
            width=64,
            color_range="full",
        ),
        labels=("stop", "yield"),
        batch=1,
        of_float=of_float,
        trials=(trial,),
        why="the only one",
        failed={},
        simulated=3,
        simulator_drift=0.0,
        unsimulated="",
        cpu_operators=(),
        predicted=SpeedEstimate(300.0, 3300.0, 1000),
        predicted_int8=None,
        layers=(),
        min_agreement=0.97,
    )
    write_certificate_page(tmp_path / "page.html", certificate, None)
    rows = Page(tmp_path / "page.html").rows
    if labeled:
        head, row = (
            ["class", "pictures", "correct, float", "correct, int8"],
            ["stop", "3", "3", "2"],
        )
    else:
        head, row = (
            ["class of the float model", "pictures", "same class in int8"],
            ["stop", "3", "2"],
        )
    assert rows[rows.index(head) + 1] == row
    text = (tmp_path / "page.html").read_text("utf-8")
    assert re.search(r"\b(right|correct)\b", text.partition("<body")[2]) is None or labeled
