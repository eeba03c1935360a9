"""Emulation of the vendor's package, as far as a classifier uses it."""
