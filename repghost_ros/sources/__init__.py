# SPDX-License-Identifier: Apache-2.0
"""Where recorded frames come from: picture files, videos, bags."""
