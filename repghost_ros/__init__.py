"""RepGhost image classification: message -> frame -> NV12 -> backend -> scores -> message.

A library without ROS:

    import cv2
    import repghost_ros

    with repghost_ros.open_model("demo") as model:
        for result in model.classify(cv2.imread("sign.png")):
            print(f"{result.score:.1%} {result.class_id}")
"""

from repghost_ros.errors import RepghostError
from repghost_ros.model import Model, open_model
from repghost_ros.results import Reporting, Result
from repghost_ros.version import __version__
from repghost_ros.vision.view import View

__all__ = ["Model", "RepghostError", "Reporting", "Result", "View", "__version__", "open_model"]
