# SPDX-License-Identifier: Apache-2.0
"""The types of the RDK's shared-memory images, which its MIPI camera publishes on /hbmem_img."""

from __future__ import annotations

from typing import Any

from repghost_ros.errors import need

_SIZES = ("HbmMsg1080P", "HbmMsg540P", "HbmMsg480P")


def message_types() -> list[Any]:
    """The message types, the camera's default first.

    Raises:
        DependencyError: hbm_img_msgs is not installed.

    """
    module = need(
        "hbm_img_msgs.msg",
        "source the RDK's own ROS, /opt/tros/humble/setup.bash, or set image_transport to raw",
    )
    return [getattr(module, name) for name in _SIZES]
