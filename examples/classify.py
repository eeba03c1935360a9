# SPDX-License-Identifier: Apache-2.0
"""Classify pictures without ROS: python examples/classify.py PICTURE|FOLDER|VIDEO..."""

import sys

import repghost_ros

if not sys.argv[1:]:
    sys.exit(__doc__)
with repghost_ros.open_model("demo") as model:
    for results in model.classify(sys.argv[1:]):
        print(results)
