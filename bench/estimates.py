# SPDX-License-Identifier: Apache-2.0
"""`make board-estimates`: what the vendor's cycle model predicts for the RDK X5.

No board is needed, and no trained weights. Every RepGhost and every model on the front of the zoo is
compiled as timm exports it, with its branches fused, and fused for batches of four. Deviations from the
published figures show how far the others can be trusted. Results go into docs/board-estimates.*;
zoo/catalogue.py repeats them.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from repghost_ros.backends.toolchain import Toolchain, find_toolchain
from repghost_ros.convert.calibration import Calibration, calibrate
from repghost_ros.convert.compilation import METHODS, compile_bin, prediction, prepare
from repghost_ros.convert.export import OPSET
from repghost_ros.errors import ConversionError, need
from repghost_ros.files import sha256
from repghost_ros.graphs.fusing import fuse_file
from repghost_ros.sources.signs import LABELS, render
from repghost_ros.zoo.catalogue import MODELS, REPGHOST, front

ROOT = Path(__file__).parent.parent
CACHE = ROOT / "build" / "board-estimates"
"""What was found stays here, so that an interrupted run goes on where it ended."""
RESULTS = ROOT / "docs" / "board-estimates.json"
PAGE, PLOT = RESULTS.with_suffix(".md"), RESULTS.with_suffix(".png")
_REASON = re.compile(r"(?<=error message: ).*|Wrong key '\w+'")
"""The words that matter among the last that a failed toolchain says."""
LIMIT_S = 600
"""Seconds after which a compilation is given up."""
_PICTURES = 4  # to calibrate with: the ranges matter to the answers, not to the cycles


@dataclass(frozen=True)
class Variant:
    """A way to compile a model."""

    name: str
    fused: bool = True
    batch: int = 1
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What differs in the toolchain's yaml, by section."""


VARIANTS = (
    Variant("as exported", fused=False),
    Variant("fused"),
    Variant("fused, batch 4", batch=4),
)
TRIED_ON = "100"
ESTIMATED = (*REPGHOST, *(name for name in front() if name not in REPGHOST))
"""The models that are compiled."""


def _compiler(name: str, **options: Any) -> Variant:
    return Variant(name, options={"compiler_parameters": options})


def _model(name: str, **options: Any) -> Variant:
    return Variant(name, options={"model_parameters": options})


TRIALS = (
    _compiler("optimize_level O2", optimize_level="O2"),
    _compiler("optimize_level O1", optimize_level="O1"),
    _compiler("optimize_level O0", optimize_level="O0"),
    _compiler("compile_mode bandwidth", compile_mode="bandwidth"),
    _compiler("compile_mode balance, factor 2", compile_mode="balance", balance_factor=2),
    _compiler("compile_mode balance, factor 50", compile_mode="balance", balance_factor=50),
    _compiler("core_num 2", core_num=2),
    _compiler("jobs 1", jobs=1),
    _compiler("max_time_per_fc 1000", max_time_per_fc=1000),
    _model("last Reshape and Dequantize removed", remove_node_type="Reshape;Dequantize"),
    _model("output_layout NHWC", output_layout="NHWC"),
    Variant("batch 2", batch=2),
    Variant("batch 8", batch=8),
)
"""What else the compiler offers, each by itself instead of O3, compile_mode latency and batch 1."""


@dataclass(frozen=True)
class Estimate:
    """A size compiled in one way, and the cycle model's prediction."""

    size: str
    variant: str
    batch: int
    latency_us: float | None = None
    """Of one inference on the BPU, of all pictures of a batch."""
    fps: float | None = None
    """Pictures a second."""
    ddr_bytes: int | None = None
    """Read and written for a picture."""
    bin_bytes: int | None = None
    refused: str = ""
    """What the toolchain said where it did not compile this."""


def float_model(size: str, fused: bool, folder: Path = CACHE) -> Path:
    """Write a network of timm with seeded random weights as ONNX; RepGhost's are like the zoo's."""
    exported, without_branches = folder / f"{size}.onnx", folder / f"{size}_fused.onnx"
    if not exported.is_file():
        _export(size, exported)
    if not fused:
        return exported
    fuse_file(exported, without_branches)
    return without_branches


def _export(size: str, path: Path) -> None:
    torch = need("torch", "make torch")
    from training.train_demo import as_input, import_timm

    torch.manual_seed(0)
    model = import_timm().create_model(MODELS[size].timm)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
            module.momentum = None  # the statistics become those of this batch
    # So all channels are alive, as in a trained model: none is zero after quantization.
    with torch.no_grad():
        model.train()(as_input(np.stack([_sign(number, 224) for number in range(16)])))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        model.eval(),
        (torch.zeros(1, 3, 224, 224),),
        str(path),
        opset_version=OPSET,
        input_names=["data"],
        output_names=["output"],
        dynamo=False,
    )


def _sign(number: int, side: int) -> np.ndarray:
    """RGB."""
    picture = render(LABELS[number % len(LABELS)], np.random.default_rng(number), side, side)
    return np.ascontiguousarray(picture[..., ::-1])


def calibration(folder: Path = CACHE) -> Calibration:
    """Render a few signs as calibration tensors."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for number in range(_PICTURES):
        cv2.imwrite(str(pictures / f"{number}.png"), _sign(number, 320)[..., ::-1])
    return calibrate(pictures, folder)


def estimate(size: str, variant: Variant, tensors: Calibration, toolchain: Toolchain) -> Estimate:
    """Compile a size in one way, or take an earlier run's result for the same graph."""
    model = float_model(size, variant.fused)
    settings = {
        "graph": sha256(model),
        "batch": variant.batch,
        "options": variant.options,
        "compiler": toolchain.compiler,
        "limit_s": LIMIT_S,
    }
    folder = CACHE / f"{size} {variant.name}".replace(",", "").replace(" ", "_")
    found = folder / "estimate.json"
    if found.is_file():
        earlier = json.loads(found.read_text())
        if earlier["settings"] == settings:
            return Estimate(**earlier["estimate"])
    job = prepare(model, size, tensors, folder, method=METHODS["max"], batch=variant.batch)
    yaml = need("yaml", "pip install pyyaml")
    config = yaml.safe_load(job.yaml.read_text())
    for section, options in variant.options.items():
        config[section].update(options)
    job.yaml.write_text(yaml.safe_dump(config, sort_keys=False))
    result = Estimate(size, variant.name, variant.batch)
    try:
        with _time_limit(LIMIT_S):
            made = compile_bin(job, toolchain)
        predicted = prediction(job)
        result = replace(
            result,
            latency_us=predicted.latency_us,
            fps=predicted.fps,
            ddr_bytes=predicted.ddr_bytes,
            bin_bytes=made.stat().st_size,
        )
    except ConversionError as error:
        told = _REASON.search(str(error))
        result = replace(
            result, refused=told[0] if told else str(error).rpartition("\n")[2].strip()
        )
    shutil.rmtree(job.work, ignore_errors=True)  # a hundred megabytes
    found.write_text(json.dumps({"settings": settings, "estimate": asdict(result)}, indent=1))
    return result


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raise ConversionError in the main thread if the block takes longer."""

    def expire(*_: object) -> None:
        raise ConversionError(f"not finished after {seconds / 60:.0f} minutes")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def sizes_table(estimates: Sequence[Estimate]) -> str:
    """Markdown: a line per size and variant, with the published figures."""
    lines = [
        "| model | compiled | us a run | FPS | published | deviation | DDR MB a frame | .bin MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in estimates:
        figures, deviation = MODELS[each.size].published, ""
        published = f"{figures.fps:.0f}" if figures and each.variant == VARIANTS[0].name else ""
        # The zoo's RepGhosts have their branches, its other models do not.
        compared = VARIANTS[0 if each.size in REPGHOST else 1].name
        if figures and each.fps and each.variant == compared:
            deviation = f"{each.fps / figures.fps - 1:+.1%}"
        latency, fps, ddr, size = _figures(each)
        cells = (each.size, each.variant, latency, fps, published, deviation, ddr, size)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def trials_table(base: Estimate, trials: Sequence[Estimate]) -> str:
    """Markdown: a line for each trial, compared with `base`."""
    lines = [
        "| changed | us a run | FPS | against the first | DDR MB a frame | .bin MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in (base, *trials):
        name = "nothing: O3, latency, batch 1" if each is base else each.variant
        latency, fps, ddr, size = _figures(each)
        gain = f"{each.fps / base.fps - 1:+.1%}" if each.fps and base.fps else ""
        lines.append(f"| {name} | {latency} | {fps} | {gain} | {ddr} | {size} |")
    return "\n".join(lines) + "\n"


def _figures(estimate: Estimate) -> tuple[str, str, str, str]:
    """Microseconds (or why there are none), FPS, and megabytes of traffic and of the file."""
    if estimate.latency_us is None:
        return (estimate.refused, "", "", "")
    assert estimate.ddr_bytes is not None
    assert estimate.bin_bytes is not None
    return (
        f"{estimate.latency_us:.0f}",
        f"{estimate.fps:.0f}",
        f"{estimate.ddr_bytes / 1e6:.2f}",
        f"{estimate.bin_bytes / 1e6:.2f}",
    )


def plot(estimates: Sequence[Estimate], path: Path) -> None:
    """Frames a second and DDR traffic by size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    sizes = list(dict.fromkeys(each.size for each in estimates))
    zoo = [figures.fps if (figures := MODELS[size].published) else 0.0 for size in sizes]
    left.bar(np.arange(len(sizes)) - 0.3, zoo, 0.2, label="published", color="C0")
    for number, variant in enumerate(VARIANTS):
        own = [each for each in estimates if each.variant == variant.name]
        places = [sizes.index(each.size) + 0.2 * number - 0.1 for each in own]
        look: dict[str, Any] = {
            "width": 0.2,
            "label": f"predicted, {variant.name}",
            "color": f"C{number + 1}",
        }
        left.bar(places, [each.fps or 0 for each in own], **look)
        right.bar(places, [(each.ddr_bytes or 0) / 1e6 for each in own], **look)
    left.set(title="frames a second, one core")
    right.set(title="DDR traffic, MB a frame")
    for axes in (left, right):
        axes.set_xticks(range(len(sizes)), sizes, rotation=45, ha="right")
        axes.set_ylim(top=1.4 * axes.get_ylim()[1])  # the legend hides no bar
        axes.legend(loc="upper center", ncols=2)
    figure.savefig(path, dpi=100)


def read() -> tuple[list[Estimate], list[Estimate]]:
    """Read docs/board-estimates.json: the sizes, and the trials."""
    found = json.loads(RESULTS.read_text())
    sizes, trials = ([Estimate(**each) for each in found[key]] for key in ("sizes", "trials"))
    return sizes, trials


def page(sizes: Sequence[Estimate], trials: Sequence[Estimate]) -> str:
    """docs/board-estimates.md with these figures."""
    base = next(each for each in sizes if each.variant == "fused" and each.size == TRIED_ON)
    text = PAGE.read_text(encoding="utf-8")
    for name, table in (("sizes", sizes_table(sizes)), ("trials", trials_table(base, trials))):
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, after = text.split(begin)[0], text.split(end)[1]
        text = f"{before}{begin}\n{table}\n{end}{after}"
    return text


def main() -> None:
    """Compile all of it, an hour or more, and write the page, its figures and its plot."""
    toolchain, tensors = find_toolchain(), calibration()

    def told(size: str, variant: Variant) -> Estimate:
        found = estimate(size, variant, tensors, toolchain)
        print(f"{size:>4} {variant.name:<32} {' '.join(_figures(found))}", flush=True)
        return found

    sizes = [told(size, variant) for size in ESTIMATED for variant in VARIANTS]
    trials = [told(TRIED_ON, variant) for variant in TRIALS]
    lists = {
        name: list(map(asdict, found)) for name, found in (("sizes", sizes), ("trials", trials))
    }
    RESULTS.write_text(json.dumps({"compiler": toolchain.compiler, **lists}, indent=1) + "\n")
    PAGE.write_text(page(sizes, trials), encoding="utf-8")
    plot(sizes, PLOT)
    print(f"\n{sizes_table(sizes)}\nwritten: {PAGE}, {RESULTS}, {PLOT}")


if __name__ == "__main__":
    main()
