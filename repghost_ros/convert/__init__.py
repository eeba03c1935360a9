# SPDX-License-Identifier: Apache-2.0
"""Model conversion: export, fusing, folding, quantization, the vendor's compiler."""
