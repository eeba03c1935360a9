# SPDX-License-Identifier: Apache-2.0
"""NV12 -> logits: one protocol, one module per runtime, and the registry that chooses among them."""
