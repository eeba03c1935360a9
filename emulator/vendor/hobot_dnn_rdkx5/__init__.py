"""Emulation of the package on PyPI, as far as a classifier uses it."""
