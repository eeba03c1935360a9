# SPDX-License-Identifier: Apache-2.0
"""RepGhost image classification: message -> frame -> NV12 -> backend -> scores -> message.

A library without ROS:

    import repghost_ros

    with repghost_ros.open_model("demo") as model:
        print(model.classify("sign.png"))

`open_model` takes a model's name (`demo`, `150`) or file. `View` chooses what of a picture the model
sees, `Reporting` which classes are reported, `BackendOptions` how the model runs. Every error is a
`RepghostError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from repghost_ros.version import __version__

if TYPE_CHECKING:
    from repghost_ros.backends.base import BackendOptions
    from repghost_ros.classifier import Classifier, open_model
    from repghost_ros.engine.model import Model
    from repghost_ros.engine.results import Reporting, Result
    from repghost_ros.errors import RepghostError
    from repghost_ros.runs.classified import Results
    from repghost_ros.vision.boxes import Box, BoxChoice
    from repghost_ros.vision.view import View

__all__ = [
    "BackendOptions",
    "Box",
    "BoxChoice",
    "Classifier",
    "Model",
    "RepghostError",
    "Reporting",
    "Result",
    "Results",
    "View",
    "__version__",
    "open_model",
]
_HOMES = {
    "BackendOptions": "backends.base",
    "Classifier": "classifier",
    "Box": "vision.boxes",
    "BoxChoice": "vision.boxes",
    "Model": "engine.model",
    "RepghostError": "errors",
    "Reporting": "engine.results",
    "Result": "engine.results",
    "Results": "runs.classified",
    "View": "vision.view",
    "open_model": "classifier",
}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import numpy and OpenCV with the first name that needs them, not with every submodule."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
