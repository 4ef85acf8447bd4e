"""Where the ruling lines of a page's picture are."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ragq.parsing.readers.pdf.ruled import WHITE, take_out_tables

HEIGHT, WIDTH = 1750, 1240


def ruled(lines_across: int, lines_down: int) -> np.ndarray:
    page = np.full((HEIGHT, WIDTH), WHITE, np.uint8)
    for line in range(lines_across):
        page[200 + 100 * line : 203 + 100 * line, 150:1100] = 0
    for line in range(lines_down):
        page[150:1600, 200 + 100 * line : 203 + 100 * line] = 0
    return page


@pytest.mark.parametrize(("across", "down", "is_table"), [(3, 3, True), (9, 3, True), (9, 2, False), (2, 9, False)])
def test_three_lines_that_cross_three_are_a_table(across: int, down: int, is_table: bool) -> None:
    assert (take_out_tables(ruled(across, down)) is not None) == is_table


def test_a_dark_picture_takes_little_longer_than_a_white_page() -> None:
    def seconds(shade: int) -> float:
        begun = time.process_time()
        assert take_out_tables(np.full((HEIGHT, WIDTH), shade, np.uint8)) is None
        return time.process_time() - begun

    assert min(seconds(0) for _ in range(3)) < 8 * min(seconds(WHITE) for _ in range(3))
