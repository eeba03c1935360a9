# SPDX-License-Identifier: Apache-2.0
"""Pictures: messages and arrays -> frames -> NV12."""
