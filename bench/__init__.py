# SPDX-License-Identifier: Apache-2.0
"""Measurements, as ratios taken in one run: `make bench`, `make soak`."""
