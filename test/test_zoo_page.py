# SPDX-License-Identifier: Apache-2.0
"""docs/zoo.md repeats the catalogue."""

from __future__ import annotations

from tools.zoo_page import PAGE, page


def test_the_page_has_the_catalogues_figures() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tools/zoo_page.py"
