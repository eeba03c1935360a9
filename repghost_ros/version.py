# SPDX-License-Identifier: Apache-2.0
"""The version: the one place where it stands, but for package.xml, which a test compares."""

__version__ = "0.2.0"
