# SPDX-License-Identifier: Apache-2.0
"""Classify the four quarters of a picture: python examples/regions.py PICTURE."""

import sys
from pathlib import Path

from repghost_ros import View, open_model
from repghost_ros.sources.pictures import read_image

if len(sys.argv) != 2:
    sys.exit(__doc__)
picture = read_image(Path(sys.argv[1]))
width, height = picture.width // 2, picture.height // 2
with open_model("demo") as model:
    for x, y in ((0, 0), (width, 0), (0, height), (width, height)):
        best = model.classify(picture, View(roi=(x, y, width, height))).best
        print(f"{x},{y}: {best.score:.1%} {best.class_id}")
