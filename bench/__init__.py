"""Measurements, as ratios taken in one run: `make bench`, `make soak`."""

import sys
from pathlib import Path

# The emulated board lives with the tests that check it.
sys.path.insert(0, str(Path(__file__).parent.parent / "test"))
