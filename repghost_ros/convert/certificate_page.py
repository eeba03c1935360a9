# SPDX-License-Identifier: Apache-2.0
"""A certificate as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from repghost_ros.convert.certificate import Certificate
from repghost_ros.results import softmax
from repghost_ros.sources.pictures import read_image
from repghost_ros.vision.nv12 import to_nv12, to_rgb
from repghost_ros.zoo.catalogue import Published

_ROWS = 10  # of worst classes and layers
_SHOWN = 12  # pictures
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2733; background: #fff; margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2rem }
.verdict { padding: .8rem 1rem; border-left: 6px solid; border-radius: 4px; margin: 1rem 0 }
.pass { background: #e8f5ec; border-color: #23864a }
.fail { background: #fdecea; border-color: #b3261e }
table { border-collapse: collapse; width: 100% } caption { text-align: left; color: #56636f }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #d7dde3 }
th:first-child, td:first-child { text-align: left } tr.chosen td { font-weight: 600 }
.note { color: #56636f; font-size: .9rem }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; width: 9.5rem }
figure img { width: 100%; border-radius: 4px } figcaption { font-size: .8rem; line-height: 1.35 }
"""


def write_page(path: Path, certificate: Certificate, published: Published | None) -> None:
    """Write the certificate as HTML.

    Args:
        path: the file.
        certificate: what it says.
        published: the vendor's figures for the same model, where there are some.

    Raises:
        OSError: it cannot be written.

    """
    path.write_text(page(certificate, published), encoding="utf-8")


def page(certificate: Certificate, published: Published | None) -> str:
    """The HTML."""
    best, predicted = certificate.best, certificate.predicted
    pictures = len(certificate.of_float.samples)
    lost = [row for row in certificate.worst_classes() if row[3] < row[2]][:_ROWS]
    verdict = (
        f"<b>Passed.</b> The compiled model gives float's class to {best.agreement:.2%} of "
        f"{pictures} pictures that it was not calibrated with; {certificate.min_agreement:.2%} was "
        "asked for."
        if certificate.passed
        else f"<b>Failed.</b> The compiled model gives float's class to only {best.agreement:.2%} of "
        f"{pictures} pictures that it was not calibrated with; {certificate.min_agreement:.2%} was "
        f"asked for. The worst layers are {escape(', '.join(_names(certificate, 3)))}."
    )
    parts = [
        f"<h1>{escape(certificate.bin.name)}</h1>",
        f'<p class="note">{certificate.bin.stat().st_size / 1e6:.2f} MB, '
        f"{certificate.calibration.width}x{certificate.calibration.height} NV12 of the "
        f"{certificate.calibration.color_range} range, {certificate.batch} picture"
        f"{'s' if certificate.batch > 1 else ''} an inference, calibrated with "
        f"{len(certificate.calibration.pictures)} pictures ({escape(best.name)})</p>",
        f'<div class="verdict {"pass" if certificate.passed else "fail"}">{verdict}</div>',
        f"<p>In the vendor's simulator of the BPU the compiled model answered {certificate.simulated} "
        f"of these pictures like the quantized model: {difference(certificate.simulator_drift)}.</p>",
        "<h2>Speed</h2>",
        _table(
            ("", "this model, predicted", "published for the board"),
            (
                (
                    "latency of an inference",
                    f"{predicted.latency_us / 1e3:.2f} ms",
                    f"{published.latency_1_ms:.2f} ms" if published else "-",
                ),
                (
                    "frames a second",
                    f"{predicted.fps:.0f}",
                    f"{published.fps:.0f}" if published else "-",
                ),
                ("memory traffic a frame", f"{predicted.ddr_bytes / 1e6:.2f} MB", "-"),
            ),
            "Predicted by the vendor's compiler for one core; measured on no board. The published "
            "latency includes the host's part.",
        ),
        "<h2>Calibrations that were tried</h2>",
        _table(
            ("method", "agreement with float", "top-1", "mean change of score"),
            (
                (
                    trial.name,
                    f"{trial.agreement:.2%}",
                    _percent(trial.answers.accuracy()),
                    f"{trial.drift:.4f}",
                )
                for trial in certificate.trials
            ),
            f"On {pictures} held-out pictures, computed bit for bit as the board does. Float's own "
            f"top-1: {_percent(certificate.of_float.accuracy())}.",
            chosen=best.name,
        ),
        f"<p>Compiled was {escape(best.name)}: {escape(certificate.why)}.</p>",
        *(
            f'<p class="note">{escape(name)} failed: {escape(why.splitlines()[0])}</p>'
            for name, why in certificate.failed.items()
        ),
        "<h2>Classes that lost most</h2>",
        _table(("class", "pictures", "right in float", "right in int8"), lost)
        if lost
        else "<p>None.</p>",
        "<h2>Layers that lost most</h2>",
        _table(
            ("layer", "cosine similarity of its output to float's"),
            ((each.layer, f"{each.cosine:.4f}") for each in certificate.layers[:_ROWS]),
        ),
    ]
    changed = certificate.changed()
    parts.append(f"<h2>Pictures that changed class: {len(changed)} of {pictures}</h2>")
    parts.append(
        '<div class="pictures">'
        + "".join(_figure(certificate, number) for number in changed[:_SHOWN])
        + "</div>"
        if changed
        else "<p>None.</p>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(certificate.bin.name)}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def difference(drift: float) -> str:
    """How far the simulator's logits were from the quantized model's, in words."""
    return f"to {drift:.0e} of the largest logit" if drift else "bit for bit"


def _names(certificate: Certificate, count: int) -> list[str]:
    return [f"{each.layer} ({each.cosine:.3f})" for each in certificate.layers[:count]]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    caption: str = "",
    *,
    chosen: str | None = None,
) -> str:
    def line(cells: Sequence[object], tag: str, kind: str = "") -> str:
        inside = "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells)
        return f"<tr{kind}>{inside}</tr>"

    body = "".join(line(row, "td", ' class="chosen"' if row[0] == chosen else "") for row in rows)
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{said}{line(head, 'th')}{body}</table>"


def _figure(certificate: Certificate, number: int) -> str:
    sample = certificate.of_float.samples[number]
    calibration = certificate.calibration
    nv12 = np.empty((calibration.height * 3 // 2, calibration.width), np.uint8)
    to_nv12(read_image(sample.path), nv12, resize="crop", color_range=calibration.color_range)
    bgr = to_rgb(nv12, calibration.color_range)[..., ::-1]
    data = base64.b64encode(cv2.imencode(".jpg", bgr)[1].tobytes()).decode()
    said = []
    for answers in (certificate.of_float, certificate.best.answers):
        scores = softmax(answers.logits[number])
        best = int(scores.argmax())
        said.append(f"{escape(certificate.labels[best])} {scores[best]:.0%}")
    truth = "" if sample.truth is None else f"<br>is: {escape(certificate.labels[sample.truth])}"
    name = escape(sample.path.name)
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" alt="{name}">'
        f"<figcaption>float: {said[0]}<br>int8: {said[1]}{truth}</figcaption></figure>"
    )
