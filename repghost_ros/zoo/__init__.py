# SPDX-License-Identifier: Apache-2.0
"""The models: which exist, where their files come from, and the names of their classes."""
