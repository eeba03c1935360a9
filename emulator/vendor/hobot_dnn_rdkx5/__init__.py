# SPDX-License-Identifier: Apache-2.0
"""Emulation of the package on PyPI, as far as a classifier uses it."""
