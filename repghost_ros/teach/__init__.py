# SPDX-License-Identifier: Apache-2.0
"""Own classes: collect and label pictures, and teach them to a classifier."""
