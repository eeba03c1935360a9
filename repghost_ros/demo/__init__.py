# SPDX-License-Identifier: Apache-2.0
"""The demo: a synthetic camera shows road signs, the node names them, a viewer compares."""
