# SPDX-License-Identifier: Apache-2.0
"""The wall: only this package, demo/ and launch/ import rclpy and message packages."""
