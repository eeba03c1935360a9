# SPDX-License-Identifier: Apache-2.0
"""A certificate as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from repghost_ros.convert.certificate import Certificate
from repghost_ros.convert.cpu_operators import CpuOperator
from repghost_ros.files import sha256
from repghost_ros.output import whole_file
from repghost_ros.runs.html import count, figure, gallery, note, page, table
from repghost_ros.vision.nv12 import to_rgb
from repghost_ros.zoo.record import Published

_ROWS = 10  # of worst classes and layers
_SHOWN = 12  # pictures


def write_certificate_page(
    path: Path, certificate: Certificate, published: Published | None
) -> None:
    """Write the certificate as HTML.

    Args:
        path: the file.
        certificate: the content.
        published: the vendor's figures for the same model, if any.

    Raises:
        OutputError: it cannot be written.

    """
    calibration = certificate.calibration
    parts = [
        note(
            f"{certificate.bin.stat().st_size / 1e6:.2f} MB, {calibration.width}x{calibration.height} "
            f"{calibration.color_range}-range NV12, {count(certificate.batch, 'picture')} per "
            f"inference, calibrated with {count(len(calibration.pictures), 'picture')} "
            f"({certificate.best.name}), fitted by resize: {calibration.fit.resize}; activation of its "
            f"outputs: {certificate.of_float.activation}"
        ),
        *_verdict(certificate),
        *_speed(certificate, published),
        *_calibrations(certificate),
        *_losses(certificate),
    ]
    title = f"Certificate of {certificate.bin.name}"
    text = page(title, parts, f"SHA-256 {sha256(certificate.bin)}")
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _verdict(certificate: Certificate) -> Iterator[str]:
    agreement = certificate.best.agreement
    end = (
        f"of {len(certificate.of_float.samples)} pictures that it was not calibrated with; at least "
        f"{certificate.min_agreement:.2%} was required."
    )
    if certificate.passed:
        said = f"<b>Passed.</b> The compiled model agrees with the float model on {agreement:.2%} {end}"
    else:
        said = (
            f"<b>Failed.</b> The compiled model agrees with the float model on only {agreement:.2%} "
            f"{end} The worst layers are {escape(', '.join(_names(certificate, 3)))}."
        )
    yield f'<div class="verdict {"pass" if certificate.passed else "fail"}">{said}</div>'
    if certificate.unsimulated:
        yield (
            f"<p>The vendor's simulator of the BPU cannot check the compiled model: "
            f"{escape(certificate.unsimulated)}.</p>"
        )
    else:
        yield (
            f"<p>In the vendor's simulator of the BPU the compiled model gave the "
            f"quantized model's logits for {certificate.simulated} of these pictures, "
            f"{difference(certificate.simulator_drift)}.</p>"
        )


def _speed(certificate: Certificate, published: Published | None) -> Iterator[str]:
    predicted = certificate.predicted
    yield "<h2>Speed</h2>"
    yield table(
        ("", "this model, predicted", "published for the board"),
        (
            (
                "latency per inference",
                f"{predicted.latency_us / 1e3:.2f} ms",
                f"{published.latency_1_ms:.2f} ms" if published else "-",
            ),
            (
                "frames per second",
                f"{predicted.fps:.0f}",
                f"{published.fps:.0f}" if published else "-",
            ),
            ("memory traffic per frame", f"{predicted.ddr_bytes / 1e6:.2f} MB", "-"),
        ),
        "Predicted by the vendor's compiler for one core, not measured on a board. The published "
        "latency includes the host's share.",
    )
    if price := int16_price(certificate):
        yield f"<p>{escape(price)}.</p>"
    if certificate.cpu_operators:
        yield f"<p>{escape(on_cpu(certificate.cpu_operators))}.</p>"


def _calibrations(certificate: Certificate) -> Iterator[str]:
    yield "<h2>Calibrations that were tried</h2>"
    yield table(
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
        f"On {len(certificate.of_float.samples)} held-out pictures, computed bit for bit as the board "
        f"does. Float's own top-1: {_percent(certificate.of_float.accuracy())}.",
        chosen=certificate.best.name,
    )
    yield f"<p>Compiled: {escape(certificate.best.name)} ({escape(certificate.why)}).</p>"
    for name, why in certificate.failed.items():
        yield note(f"{name} failed: {why.splitlines()[0]}")


def _losses(certificate: Certificate) -> Iterator[str]:
    lost = [row for row in certificate.worst_classes() if row[3] < row[2]][:_ROWS]
    yield "<h2>Classes that lost the most</h2>"
    if not lost:
        yield "<p>None.</p>"
    elif certificate.of_float.accuracy() is not None:
        yield table(("class", "pictures", "correct, float", "correct, int8"), lost)
    else:
        rows = ((name, pictures, kept) for name, pictures, _, kept in lost)
        yield table(("class of the float model", "pictures", "same class in int8"), rows)
    yield "<h2>Layers that lost the most</h2>"
    yield table(
        ("layer", "cosine similarity to the float model's output"),
        ((layer.layer, f"{layer.cosine:.4f}") for layer in certificate.layers[:_ROWS]),
    )
    changed = certificate.changed()
    pictures = len(certificate.of_float.samples)
    yield f"<h2>Pictures that changed class: {len(changed)} of {pictures}</h2>"
    figures = (_figure(certificate, number) for number in changed[:_SHOWN])
    yield gallery(figures) if changed else "<p>None.</p>"


def int16_price(certificate: Certificate) -> str:
    """Return what nodes at int16 cost, in words; empty if there are none."""
    eight = certificate.predicted_int8
    if eight is None:
        return ""
    fps, nodes = certificate.predicted.fps, len(certificate.best.variant.int16)
    return (
        f"keeping {nodes} nodes at int16 costs {1 - fps / eight.fps:.1%} of the speed: {eight.fps:.0f} "
        f"frames per second are predicted without them, {fps:.0f} with them"
    )


def on_cpu(operators: Sequence[CpuOperator]) -> str:
    """Return a warning of operators that run on the CPU, in words, with their times."""
    times = ", ".join(
        f"{each.operator} {'not measured' if each.pc_ms is None else f'{each.pc_ms:.3f} ms'}"
        for each in operators
    )
    return (
        f"on the CPU, and not in the prediction: {count(len(operators), 'operator')}, {times}, a "
        "picture (measured on this PC, one thread; the board's Cortex-A55 is slower)"
    )


def difference(drift: float) -> str:
    """Return how far the simulator's logits were from the quantized model's, in words."""
    return f"to {drift:.0e} of the largest logit" if drift else "bit for bit"


def _names(certificate: Certificate, count: int) -> list[str]:
    return [f"{layer.layer} ({layer.cosine:.3f})" for layer in certificate.layers[:count]]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _figure(certificate: Certificate, number: int) -> str:
    sample = certificate.of_float.samples[number]
    calibration = certificate.calibration
    lines = []
    for kind, answers in (("float", certificate.of_float), ("int8", certificate.best.answers)):
        scores = answers.scores[number]
        best = int(scores.argmax())
        lines.append(f"{kind}: {certificate.labels[best]} {scores[best]:.0%}")
    if sample.truth is not None:
        lines.append(f"actual: {certificate.labels[sample.truth]}")
    seen = to_rgb(calibration.nv12(sample.path), calibration.color_range)
    return figure(seen, "\n".join(lines))
