# SPDX-License-Identifier: Apache-2.0
"""Train, re-parameterize and export the demo model: RepGhost 0.5x on the package's own road signs.

    python training/train_demo.py

draws the training and test pictures, trains on the CPU, writes models/demo.onnx and
labels/demo.txt, and prints the exported model's accuracy on pictures it has not seen.
See training/README.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from repghost_ros.convert.export import export  # noqa: E402
from repghost_ros.sources.signs import LABELS, render  # noqa: E402
from repghost_ros.vision.frame import from_array  # noqa: E402
from repghost_ros.vision.nv12 import to_nv12, to_rgb  # noqa: E402
from repghost_ros.zoo.own import LABELS_KEY  # noqa: E402
from repghost_ros.zoo.record import IMAGENET  # noqa: E402

SIDE = 224
# First element of each picture's seed; test/test_demo_model.py uses a third value.
TRAIN_SEED, HELD_OUT_SEED = 0, 1
TRAIN_PER_CLASS, HELD_OUT_PER_CLASS = 1200, 200
TRAIN_FRAMES = ((224, 224), (224, 224), (224, 224), (320, 240), (640, 480))
STAGES = ((112, 4, 3e-3), (SIDE, 3, 1e-3))  # side, epochs, peak learning rate
BATCH = 64


def as_model_sees(bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert a camera's picture as the classifier does: stretched, NV12 and back, RGB uint8."""
    nv12 = np.empty((SIDE * 3 // 2, SIDE), np.uint8)
    to_nv12(from_array(bgr), nv12)
    return to_rgb(nv12)


def draw(index: int, seed: int, frames: tuple[tuple[int, int], ...]) -> NDArray[np.uint8]:
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, index])
    width, height = frames[index // len(LABELS) % len(frames)]
    return as_model_sees(render(index % len(LABELS), rng, width, height))


def draw_set(path: Path, seed: int, per_class: int, *frames: tuple[int, int]) -> NDArray[np.uint8]:
    """(N, 224, 224, 3) RGB uint8 on disk; picture i shows LABELS[i % len(LABELS)]."""
    count = per_class * len(LABELS)
    pictures = open_memmap(path, "w+", np.uint8, (count, SIDE, SIDE, 3))
    with ProcessPoolExecutor() as pool:
        drawn = pool.map(draw, range(count), repeat(seed), repeat(frames), chunksize=64)
        for i, picture in enumerate(drawn):
            pictures[i] = picture
    return pictures


def import_timm() -> Any:
    """Import timm beside a torchvision without compiled operators (there is no such CPU wheel).

    timm wants torchvision's Python code only, which registers shapes for these two operators.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm
    import timm.utils

    return timm


def as_input(rgb: NDArray[np.uint8]) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32, normalized, channels last in memory."""
    pixels = torch.from_numpy(rgb).float()
    return ((pixels - torch.tensor(IMAGENET.mean)) * torch.tensor(IMAGENET.scale)).permute(
        0, 3, 1, 2
    )


def train(
    model: torch.nn.Module,
    average: Any,
    pictures: NDArray[np.uint8],
    rng: np.random.Generator,
) -> None:
    """Small pictures first, full size last; `average` follows with the weights' moving mean."""
    truth = torch.arange(len(pictures)) % len(LABELS)
    compiled = torch.compile(model, dynamic=False)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.05)
    for side, epochs, peak in STAGES:
        batches = len(pictures) // BATCH
        optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, peak, total_steps=epochs * batches, pct_start=0.15
        )
        for epoch in range(epochs):
            started, right, total_loss = time.monotonic(), 0, 0.0
            order = rng.permutation(len(pictures))[: batches * BATCH].reshape(batches, BATCH)
            for step, chosen in enumerate(np.sort(order, axis=1), 1):
                batch = np.stack(
                    [
                        cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
                        for picture in pictures[chosen]
                    ]
                )
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    logits = compiled(as_input(batch))
                loss = loss_of(logits.float(), truth[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                average.update(model)
                right += int((logits.argmax(1) == truth[chosen]).sum())
                total_loss += float(loss.detach())
                if step % 50 == 0 or step == batches:
                    print(
                        f"{side} px, epoch {epoch + 1}/{epochs}, batch {step}/{batches}: "
                        f"loss {total_loss / step:.3f}, right {right / step / BATCH:.2%}, "
                        f"{time.monotonic() - started:.0f} s",
                        flush=True,
                    )


def evaluate(path: Path, pictures: NDArray[np.uint8], what: str) -> None:
    """Print the exported model's top-1, overall and by class, as Markdown."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    confusion = np.zeros((len(LABELS), len(LABELS)), int)
    for i, picture in enumerate(pictures):
        (logits,) = session.run(None, {"data": as_input(picture[None]).contiguous().numpy()})
        confusion[i % len(LABELS), int(logits.argmax())] += 1
    right = int(np.trace(confusion))
    print(f"\n{what}: top-1 {right}/{len(pictures)} = {right / len(pictures):.2%}\n")
    print("| class | right | mistaken for |\n|---|---|---|")
    for label, row, own in zip(LABELS, confusion, np.diag(confusion), strict=True):
        wrong = [f"{LABELS[j]} {n}" for j, n in enumerate(row) if n and LABELS[j] != label]
        print(f"| {label} | {own}/{row.sum()} | {', '.join(wrong)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT, help="where models/ and labels/ go")
    output = parser.parse_args().output
    started = time.monotonic()
    torch.manual_seed(0)
    timm = import_timm()
    model = timm.create_model("repghostnet_050", num_classes=len(LABELS))
    model = model.to(memory_format=torch.channels_last)
    average = timm.utils.ModelEmaV3(model, decay=0.995, use_warmup=True)

    with tempfile.TemporaryDirectory(prefix="train_demo_") as scratch:
        folder = Path(scratch)
        pictures = draw_set(folder / "train.npy", TRAIN_SEED, TRAIN_PER_CLASS, *TRAIN_FRAMES)
        print(f"{len(pictures)} training pictures, {time.monotonic() - started:.0f} s", flush=True)
        train(model, average, pictures, np.random.default_rng(0))

        path = output / "models" / "demo.onnx"
        exported = export(average.module, path, side=SIDE, metadata={LABELS_KEY: "\n".join(LABELS)})
        print(f"{exported}, {path.stat().st_size / 1e6:.2f} MB")
        labels = output / "labels" / "demo.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("".join(f"{label}\n" for label in LABELS), encoding="utf-8")
        print(f"trained in {(time.monotonic() - started) / 60:.1f} min", flush=True)
        for width, height in ((SIDE, SIDE), (640, 480)):
            held_out = draw_set(
                folder / f"{width}x{height}.npy", HELD_OUT_SEED, HELD_OUT_PER_CLASS, (width, height)
            )
            evaluate(path, held_out, f"Held-out pictures, {width}x{height}")


if __name__ == "__main__":
    main()
