"""The emulated board: see emulator.py."""
