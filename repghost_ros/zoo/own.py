# SPDX-License-Identifier: Apache-2.0
"""What a model of own classes says about itself: resize policy, threshold of `unknown`."""

from __future__ import annotations

RESIZE_KEY = "resize"
"""Metadata: how pictures were fitted to the input in training, a resize policy."""
UNKNOWN_BELOW_KEY = "unknown_below"
"""Metadata: the score below which the best class means `unknown`, 0 to 1."""
TRAINED_KEY = "trained_pictures"
"""Metadata: the first 16 digits of the SHA-256 of every training picture, one a line."""
