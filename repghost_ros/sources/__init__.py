# SPDX-License-Identifier: Apache-2.0
"""Sources of recorded frames: picture files, videos, bags."""
