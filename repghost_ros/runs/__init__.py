# SPDX-License-Identifier: Apache-2.0
"""Work over many frames: classify, replay, evaluate, benchmark."""
