"""Lines of NDJSON as people's tools write them: a byte order mark before the first, CRLF, blank lines between.

The mark and the CRs go, blank lines say nothing.  A row is known by its line's number, so a blank line keeps its own:
it comes as no bytes at all, and is for each reader to pass over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

MARK: Final = b"\xef\xbb\xbf"
"""U+FEFF in UTF-8, which Windows programs put before a text."""

_SPACE: Final = b" \t\r"
_BEFORE_BLANK: Final = re.compile(rb"\n(?=[ \t\r]*\n)")


def plain(lines: Iterator[bytes]) -> Iterator[bytes]:
    r"""Lines of a file, given without their `\n`, as JSON; blank ones as no bytes."""
    mark = MARK
    for line in lines:
        text = line.removeprefix(mark).removesuffix(b"\r")
        mark = b""
        yield text if text.strip(_SPACE) else b""


def spoken(lines: Sequence[bytes], first: int) -> tuple[list[bytes], Ints]:
    """Lines that are not blank, and their numbers, where the first line has the one given."""
    kept = [at for at, line in enumerate(lines) if line]
    return [lines[at] for at in kept], first + np.array(kept, np.int64)


class LineCount:
    """Counts lines, and blank ones among them, in the bytes of a file as they come: no line is looked at by itself."""

    def __init__(self) -> None:
        self._lines = self._blank = 0
        self._last: bytes | None = None

    def add(self, chunk: bytes) -> None:
        """Count the next bytes in."""
        if self._last is None:
            self._last = b"\n"  # as if a line had ended before the first
            chunk = chunk.removeprefix(MARK)
        text = self._last + chunk
        self._lines += chunk.count(b"\n")
        self._blank += len(_BEFORE_BLANK.findall(text))
        begun = text[text.rfind(b"\n") + 1 :]
        self._last = b"\n" + (b"" if not begun else b"{" if begun.strip(_SPACE) else b" ")

    @property
    def rows(self) -> tuple[int, int]:
        """Lines, and how many of them are blank; what the last one lacks is its end."""
        begun = (self._last or b"\n")[1:]
        return self._lines + bool(begun), self._blank + (begun == b" ")
