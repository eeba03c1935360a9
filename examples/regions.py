# SPDX-License-Identifier: Apache-2.0
"""Classify the four quarters of a picture: python examples/regions.py PICTURE."""

import sys
from pathlib import Path

from repghost_ros import Box, Reporting, open_model
from repghost_ros.sources.pictures import read_image

if len(sys.argv) != 2:
    sys.exit(__doc__)
picture = read_image(Path(sys.argv[1]))
width, height = picture.width / 2, picture.height / 2
centers = [(x * width, y * height) for y in (0.5, 1.5) for x in (0.5, 1.5)]
boxes = [Box(x, y, width, height) for x, y in centers]
with open_model("demo") as model:
    for region in model.classify_regions(picture, boxes, reporting=Reporting(top_k=1)):
        (best,) = region.results
        print(f"around {region.box.x:g},{region.box.y:g}: {best.score:.1%} {best.class_id}")
