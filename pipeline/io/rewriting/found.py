"""Rewritten files found in a lake whose catalog is lost: which of them count, and what they stand for.

They get into their tables before what they were made of goes, all of a rewrite's before any of that.  So where a crash
came in between, both are there: rewritten files count where the rows of all their sources are whole, and then nothing
that they were made of counts; else their inputs are still there, and count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.io.footers import Rewritten
from pipeline.io.rewriting.held import Fates, Place


@dataclass(frozen=True, slots=True)
class FoundRewritten:
    """One of them.

    Attributes:
        path: relative to the lake.
        place: its table and hour.
        said: its footer.
    """

    path: str
    place: Place
    said: Rewritten


@dataclass(slots=True)
class Sorted:
    """What was decided.

    Attributes:
        kept: those that count.
        needless: paths of those that do not.
        fates: what those that count hold of each commit.
    """

    kept: list[FoundRewritten] = field(default_factory=list)
    needless: list[str] = field(default_factory=list)
    fates: Fates = field(default_factory=Fates)


def sort_out(files: Sequence[FoundRewritten]) -> Sorted:
    """Decide which rewritten files count."""
    candidates = list(files)
    while True:
        replaced = {file_id for file in candidates for file_id in file.said.replaces}
        last = [file for file in candidates if file.said.file_id not in replaced]
        fates = Fates()
        fates.add_rewritten([(file.place, file.said) for file in last])
        partial = [file for file in last if not _is_whole(file, fates)]
        if not partial:
            kept = {file.path for file in last}
            return Sorted(last, [file.path for file in files if file.path not in kept], fates)
        without = {file.path for file in partial}
        candidates = [file for file in candidates if file.path not in without]


def _is_whole(file: FoundRewritten, fates: Fates) -> bool:
    """Whether all that a file's sources landed is in files that are there, or was erased."""
    held: Mapping[str, tuple[int, int]] = {
        source.made.commit.commit_id: (whole.rows + whole.erased, whole.landed)
        for source in file.said.sources
        for whole in [fates.of[source.made.commit.commit_id].held[file.place]]
    }
    return all(there == landed for there, landed in held.values())
