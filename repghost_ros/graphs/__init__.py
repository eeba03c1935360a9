# SPDX-License-Identifier: Apache-2.0
"""ONNX graphs as data: read, written, fused, equalized; no model is run but to observe it."""
