# SPDX-License-Identifier: Apache-2.0
"""Under the vendor's name."""

from emulator.pyeasy_dnn import Model, load

__all__ = ["Model", "load"]
