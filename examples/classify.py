# SPDX-License-Identifier: Apache-2.0
"""Name what a picture shows, in five lines and without ROS: python examples/classify.py PICTURE."""

import sys

import cv2

import repghost_ros

with repghost_ros.open_model("demo") as model:
    for result in model.classify(cv2.imread(sys.argv[1])):
        print(f"{result.score:.1%} {result.class_id}")
