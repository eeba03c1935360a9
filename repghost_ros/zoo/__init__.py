# SPDX-License-Identifier: Apache-2.0
"""The models: which there are, where their files come from, what their classes are called."""
