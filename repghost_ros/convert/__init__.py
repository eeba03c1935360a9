# SPDX-License-Identifier: Apache-2.0
"""Models made from models: export, folding, quantization, the vendor's compiler."""
