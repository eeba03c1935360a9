# SPDX-License-Identifier: Apache-2.0
"""The answers that a board must give: `python tools/certify_demo.py` writes models/demo_certified.npz.

The vendor's simulator runs the shipped demo model on a few rendered signs. Run this whenever
models/demo_224x224_nv12.bin has changed. The signs are kept as NV12, because another OpenCV may draw
them a little differently.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from repghost_ros.backends.sim import CompiledBackend
from repghost_ros.files import sha256
from repghost_ros.runs.board_report import CERTIFIED, SEED, Certified
from repghost_ros.sources.signs import LABELS, render
from repghost_ros.vision.frame import from_array
from repghost_ros.vision.nv12 import to_nv12
from repghost_ros.zoo.catalogue import DEMO_FILES
from repghost_ros.zoo.model_file import read_model_file

MODELS = Path(__file__).parent.parent / "models"
EVERY = 3  # third label, which keeps the file below 300 kB


def certify(model: Path) -> Certified:
    """Render the signs and simulate the model on them."""
    slot = CompiledBackend(read_model_file(model)).open_slot()
    frames, logits = [], []
    for number in range(0, len(LABELS), EVERY):
        picture = render(number, np.random.default_rng(SEED + number), 320, 240)
        to_nv12(from_array(picture), slot.nv12)
        frames.append(slot.nv12.copy())
        logits.append(slot.infer())
        if logits[-1].argmax() != number:
            raise SystemExit(
                f"the simulated model does not know '{LABELS[number]}': compile it anew"
            )
    slot.close()
    return Certified(np.array(frames), np.array(logits), sha256(model))


if __name__ == "__main__":
    certify(MODELS / DEMO_FILES["bin"]).write(MODELS / CERTIFIED)
