"""NV12 -> logits: one protocol, one module a runtime, and the registry that chooses among them."""
