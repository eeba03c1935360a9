"""Keeps the tests' ROS graph and logs to themselves."""

from __future__ import annotations

import os
import tempfile

# Before rclpy is imported: another domain for every run, and no log files in the user's home.
os.environ.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 100 + 1))
os.environ["ROS_LOG_DIR"] = tempfile.mkdtemp(prefix="repghost_ros_log_")
