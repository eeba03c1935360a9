# SPDX-License-Identifier: Apache-2.0
"""Print a bag's classes, run by run and without ROS: python examples/replay_bag.py BAG [TOPIC]."""

import sys
from itertools import groupby
from pathlib import Path

import repghost_ros
from repghost_ros.runs.replay import Answer, replay
from repghost_ros.sources.bags import Bag


def best(answer: Answer) -> str:
    """Return the best class of a frame, or why it has none."""
    return answer.results[0].class_id if answer.results else answer.error or "nothing"


if len(sys.argv) not in (2, 3):
    sys.exit(__doc__)
bag_path, topic = (*sys.argv[1:], "")[:2]
with Bag(Path(bag_path)) as bag, repghost_ros.open_model("demo") as model:
    for shown, answers in groupby(replay(bag, topic, model), best):
        print(f"{len(list(answers)):5} frames: {shown}")
