# SPDX-License-Identifier: Apache-2.0
"""The demo: a synthetic camera films road signs, the node names them, a viewer compares."""
