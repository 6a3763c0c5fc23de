"""Tables as the commands print them."""

from __future__ import annotations

from collections.abc import Sequence


def layout(rows: Sequence[Sequence[str]], *, left: set[int]) -> str:
    """Columns two spaces apart, right-aligned except for those in `left`, with a rule below the first row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
