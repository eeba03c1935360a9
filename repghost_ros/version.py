# SPDX-License-Identifier: Apache-2.0
"""The version: its one definition but for package.xml, which a test compares."""

__version__ = "0.2.0"
