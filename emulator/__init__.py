# SPDX-License-Identifier: Apache-2.0
"""The emulated board, for test/ and bench/: stand-ins for the vendor's libraries.

`board.py` builds and drives libdnn.c; `python -m emulator MODULE` runs a program of this package
with it; `vendor/` holds stand-ins for the vendor's Python packages, to be put on PYTHONPATH under
their own names.
"""
