# SPDX-License-Identifier: Apache-2.0
"""A certificate as one self-contained HTML file."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

from repghost_ros.convert.certificate import Certificate
from repghost_ros.runs.html import figure, gallery, note, table
from repghost_ros.runs.html import page as html_page
from repghost_ros.sources.pictures import read_image
from repghost_ros.vision.nv12 import to_nv12, to_rgb
from repghost_ros.zoo.catalogue import Published

_ROWS = 10  # of worst classes and layers
_SHOWN = 12  # pictures


def write_page(path: Path, certificate: Certificate, published: Published | None) -> None:
    """Write the certificate as HTML.

    Args:
        path: the file.
        certificate: the content.
        published: the vendor's figures for the same model, if any.

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
        note(
            f"{certificate.bin.stat().st_size / 1e6:.2f} MB, "
            f"{certificate.calibration.width}x{certificate.calibration.height} NV12 of the "
            f"{certificate.calibration.color_range} range, {certificate.batch} picture"
            f"{'s' if certificate.batch > 1 else ''} an inference, calibrated with "
            f"{len(certificate.calibration.pictures)} pictures ({best.name})"
        ),
        f'<div class="verdict {"pass" if certificate.passed else "fail"}">{verdict}</div>',
        f"<p>In the vendor's simulator of the BPU the compiled model answered {certificate.simulated} "
        f"of these pictures like the quantized model: {difference(certificate.simulator_drift)}.</p>",
        "<h2>Speed</h2>",
        table(
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
        table(
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
            note(f"{name} failed: {why.splitlines()[0]}")
            for name, why in certificate.failed.items()
        ),
        "<h2>Classes that lost most</h2>",
        table(("class", "pictures", "right in float", "right in int8"), lost)
        if lost
        else "<p>None.</p>",
        "<h2>Layers that lost most</h2>",
        table(
            ("layer", "cosine similarity of its output to float's"),
            ((each.layer, f"{each.cosine:.4f}") for each in certificate.layers[:_ROWS]),
        ),
    ]
    changed = certificate.changed()
    parts.append(f"<h2>Pictures that changed class: {len(changed)} of {pictures}</h2>")
    figures = (_figure(certificate, number) for number in changed[:_SHOWN])
    parts.append(gallery(figures) if changed else "<p>None.</p>")
    return html_page(certificate.bin.name, parts)


def difference(drift: float) -> str:
    """How far the simulator's logits were from the quantized model's, in words."""
    return f"to {drift:.0e} of the largest logit" if drift else "bit for bit"


def _names(certificate: Certificate, count: int) -> list[str]:
    return [f"{each.layer} ({each.cosine:.3f})" for each in certificate.layers[:count]]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _figure(certificate: Certificate, number: int) -> str:
    sample = certificate.of_float.samples[number]
    calibration = certificate.calibration
    nv12 = np.empty((calibration.height * 3 // 2, calibration.width), np.uint8)
    to_nv12(read_image(sample.path), nv12, resize="crop", color_range=calibration.color_range)
    said = []
    for kind, answers in (("float", certificate.of_float), ("int8", certificate.best.answers)):
        scores = answers.scores[number]
        best = int(scores.argmax())
        said.append(f"{kind}: {certificate.labels[best]} {scores[best]:.0%}")
    if sample.truth is not None:
        said.append(f"is: {certificate.labels[sample.truth]}")
    return figure(to_rgb(nv12, calibration.color_range), "\n".join(said))
