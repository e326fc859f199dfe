"""Writing results into docs/benchmarks.md: only what stands between markers, so that the words around it stay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def write_section(name: str, text: str, document: Path = DOCUMENT) -> None:
    """Replace what stands between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.

    Raises:
        ValueError: the document does not have these markers.
    """
    marked = re.compile(rf"(<!-- bench:{name} -->\n).*?(<!-- /bench:{name} -->)", re.DOTALL)
    content, found = marked.subn(lambda match: f"{match[1]}{text.strip()}\n{match[2]}", document.read_text("utf-8"))
    if found != 1:
        raise ValueError(f"{document} has {found} sections bench:{name}")
    document.write_text(content, "utf-8")


def table(header: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns hold text, the others numbers."""
    lines = [header, ["---" if number < left else "---:" for number in range(len(header))], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
