"""Retention: whole hours of a table go once they are too old.

The mark that says so is raised first, in the lake and then in the catalog, and never lowered: a row that comes late for
an hour below it is landed like any other, and goes with the next run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pipeline.commits import FileEntry
from pipeline.errors import FencedError, RetryableError
from pipeline.io.footers import Made, read_footer, said_by
from pipeline.io.rewriting.held import Place, is_below
from pipeline.io.rewriting.marks import raise_marks
from pipeline.io.rewriting.rewriter import Rewriter
from pipeline.io.rewriting.settling import discard
from pipeline.lake_tables import NO_TIME_DAY

RETAIN: Final = "retain"

KEPT_DAYS: Final[Mapping[str, float]] = {
    "access": 90,
    "content": 7,
    "rejects": 7,
    "account_windows": 400,
    "alerts": 400,
}
"""How long each table is kept by default; rejects hold raw bytes, which may hold text, so they go with the text."""

_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Old:
    """What is too old of a table.

    Attributes:
        table: its name.
        before: the hour below which nothing is kept, as `YYYY-MM-DDTHH`.
        files: whole hours below it.
    """

    table: str
    before: str
    files: tuple[FileEntry, ...]


def hour_before(now_us: int, days: float) -> str:
    """The hour below which all is older than some days."""
    moment = datetime.fromtimestamp(now_us / 1e6, UTC) - timedelta(days=days)
    return moment.strftime("%Y-%m-%dT%H")


class Retainer(Rewriter):
    """Lets go what is too old."""

    def old(self, table: str, days: float) -> Old:
        """What there is that is too old of a table."""
        before = hour_before(self._clock.now_us(), days)
        files = [file for file in self._catalog.live_files(table) if self._is_old(file, before)]
        return Old(table, before, tuple(files))

    def retain(self, table: str, days: float) -> Old:
        """Let it go: readers see it no more from here on, and its files are removed after the grace period.

        Returns:
            What was too old.

        Raises:
            RetryableError: the lake or the catalog fails, or other rewrites replaced the same files again and again.
        """
        for _ in range(_ATTEMPTS):
            old = self.old(table, days)
            if not old.files:
                return old
            with contextlib.suppress(FencedError):
                self._let_go(old)
                return old
        raise RetryableError(f"{table}: other rewrites replaced its files again and again; run it again later")

    def _let_go(self, old: Old) -> None:
        raise_marks(self._lake.root, {old.table: old.before})
        self._step("marked")
        rewrite_id = self._ledger.begin(RETAIN, self._clock.now_us())
        self._step("begun")
        try:
            self._ledger.swap(rewrite_id, old.files, (), self._clock.now_us(), {old.table: old.before})
        except BaseException:
            discard(self._lake, self._ledger, rewrite_id)
            raise
        self._step("swapped")

    def _is_old(self, file: FileEntry, before: str) -> bool:
        if not is_below(Place(file.table_name, file.dt, file.hour), {file.table_name: before}):
            return False
        if file.dt != NO_TIME_DAY:
            return True
        # Rows without a time are as old as their commits say.
        said = said_by(read_footer(self._lake.root / file.path)[0])
        commits = [said.commit] if isinstance(said, Made) else [source.made.commit for source in said.sources]
        latest = max((commit.committed_at_us for commit in commits), default=0)
        return hour_before(latest, 0) < before
