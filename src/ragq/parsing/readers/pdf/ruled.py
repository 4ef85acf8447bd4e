"""Tables with ruling lines in the picture of a page: tesseract takes them for drawings, and leaves out what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Mask = NDArray[np.bool_]
    Places = NDArray[np.intp]

WHITE, DARK = 255, 160
LEAST_PIXELS = 100  # of a ruling line, a third of an inch: no letter of a text has so long a stroke
SAME_PIXELS = 20  # crossings so near are in one row or column
LEAST_LINES = 3  # each way, that cross: they enclose two by two cells
MARGIN = 8  # pixels around a table


def take_out_tables(pixels: Pixels) -> tuple[Pixels, Pixels] | None:
    """Return the page without the part that has ruled tables, and that part without its lines; None if there is none.

    Args:
        pixels: Shades of grey, row by row.
    """
    import numpy as np  # noqa: PLC0415  (only pages that are read by OCR need it)

    dark = pixels < DARK
    across, down = _find_runs(dark), _find_runs(np.ascontiguousarray(dark.T)).T
    rows, columns = np.nonzero(across & down)
    if not rows.size or not _is_grid(_group(rows), _group(columns)):
        return None
    lines = _widen(across | down)
    top, bottom = max(0, rows.min() - MARGIN), rows.max() + MARGIN
    left, right = max(0, columns.min() - MARGIN), columns.max() + MARGIN
    page = pixels.copy()
    page[top:bottom, left:right] = WHITE
    return page, np.where(lines, WHITE, pixels)[top:bottom, left:right]


def _find_runs(dark: Mask) -> Mask:
    """Find the pixels that are in long dark runs along their row."""
    import numpy as np  # noqa: PLC0415

    height, width = dark.shape
    if width < LEAST_PIXELS:
        return np.zeros_like(dark)
    counted = np.zeros((height, width + 1), np.uint16)  # differences stay right if it overflows
    np.cumsum(dark, axis=1, dtype=np.uint16, out=counted[:, 1:])
    begins = (counted[:, LEAST_PIXELS:] - counted[:, :-LEAST_PIXELS]) == LEAST_PIXELS
    change = np.zeros((height, width + 1), np.int16)
    change[:, : width + 1 - LEAST_PIXELS] += begins
    change[:, LEAST_PIXELS:] -= begins
    found: Mask = np.cumsum(change, axis=1, dtype=np.int16)[:, :width] > 0
    return found


def _group(places: Places) -> Places:
    """Number the groups that places are in."""
    import numpy as np  # noqa: PLC0415

    values = np.flatnonzero(np.bincount(places))  # counted, not sorted: a dark picture has millions
    groups = np.zeros(values[-1] + 1, np.intp)
    groups[values[1:]] = np.cumsum(np.diff(values) > SAME_PIXELS)
    found: Places = groups[places]
    return found


def _is_grid(rows: Places, columns: Places) -> bool:
    """Whether enough lines cross enough others; the strokes of large letters cross few."""
    import numpy as np  # noqa: PLC0415

    crossings = np.zeros((rows.max() + 1, columns.max() + 1), np.bool_)
    crossings[rows, columns] = True
    return all((crossings.sum(axis=way) >= LEAST_LINES).sum() >= LEAST_LINES for way in (0, 1))


def _widen(lines: Mask) -> Mask:
    """Add the pixels beside lines: a scanner leaves grey there."""
    wide = lines.copy()
    for step in (1, 2):
        wide[step:] |= lines[:-step]
        wide[:-step] |= lines[step:]
        wide[:, step:] |= lines[:, :-step]
        wide[:, :-step] |= lines[:, step:]
    return wide
