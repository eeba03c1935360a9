# SPDX-License-Identifier: Apache-2.0
"""Helpers of several test modules: bags, pictures, models, a server, a robot in the ROS graph."""
