# SPDX-License-Identifier: Apache-2.0
"""Classify the four quarters of a picture: python examples/regions.py PICTURE."""

import sys

import cv2

from repghost_ros import Reporting, View, open_model

picture = cv2.imread(sys.argv[1])
height, width = picture.shape[0] // 2, picture.shape[1] // 2
with open_model("demo") as model:
    for x, y in ((0, 0), (width, 0), (0, height), (width, height)):
        view = View(roi=(x, y, width, height))
        (best,) = model.classify(picture, view, Reporting(top_k=1))
        print(f"{x},{y}: {best.score:.1%} {best.class_id}")
