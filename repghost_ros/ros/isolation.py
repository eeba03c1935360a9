# SPDX-License-Identifier: Apache-2.0
"""A private ROS domain on this machine, for tests, benchmarks and the demo."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile

_DOMAINS = range(1, 102)  # beyond, their ports are in Linux's ephemeral range
_LOCALHOST_ONLY = ("humble", "galactic", "foxy")  # later distributions use the discovery range


def isolate() -> int:
    """Move this process and its future children to a domain that nobody here uses.

    Call it before rclpy is initialized. ROS_DOMAIN_ID is overridden, because a robot may use
    that domain. The domain is kept until the process ends.

    Returns:
        The domain.

    Raises:
        RuntimeError: every domain is taken.

    """
    domain = next(filter(_take, _DOMAINS), None)
    if domain is None:
        raise RuntimeError(f"domains {_DOMAINS[0]} to {_DOMAINS[-1]} are all in use here")
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    if os.environ.get("ROS_DISTRO") in _LOCALHOST_ONLY:
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
    else:
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        os.environ.pop("ROS_STATIC_PEERS", None)
    return domain


def _take(domain: int) -> bool:
    """Lock a domain; returns False if it is locked or a DDS participant uses it."""
    path = os.path.join(tempfile.gettempdir(), f"repghost_ros_domain_{domain}.lock")
    try:
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    except OSError:  # another user's
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # DDSI-RTPS 9.6.2.3: multicast discovery, and the first participant's own port.
        for port in (7400 + 250 * domain, 7410 + 250 * domain):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as discovery:
                discovery.bind(("", port))
    except OSError:
        os.close(lock)
        return False
    return True  # the lock stays open until the process ends
