# SPDX-License-Identifier: Apache-2.0
"""Frames in flight: bounded queues, parallel workers, answers in order."""
