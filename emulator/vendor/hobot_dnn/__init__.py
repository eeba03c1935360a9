# SPDX-License-Identifier: Apache-2.0
"""Emulation of the package in the board's image, as far as a classifier uses it."""
