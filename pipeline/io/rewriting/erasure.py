"""Erasure: one account's rows, state, snapshots and alerts go, everybody else's stay.

The order matters.  Files first, so that whoever replays from then on reads none of its rows.  Then, partition by
partition, its snapshots, and then the partition is taken over: a worker that still remembers the account can commit no
more, and begins again from what is there.  That is repeated until neither a file nor a snapshot that the catalog lists
holds the account after the take-over, for the worker may have written more in between.  Each step can be done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from pipeline.batch import Partition
from pipeline.commits import FileEntry, SnapshotEntry
from pipeline.errors import FencedError, RetryableError, SchemaError
from pipeline.forgetting import without_account
from pipeline.io.catalog import AlertFilter, Catalog
from pipeline.io.desk import copies
from pipeline.io.lake import REWRITES, Lake
from pipeline.io.rewriting.annex import ANNEXES
from pipeline.io.rewriting.ledger import RewriteLedger
from pipeline.io.rewriting.naming import REJECTS, Named
from pipeline.io.rewriting.rewriter import Rewriter
from pipeline.io.rewriting.settling import discard, tidy
from pipeline.io.rewriting.writing import Limits, read_input, write_outputs
from pipeline.lake_tables import TABLES
from pipeline.opening import take_over
from pipeline.ports import Clock
from pipeline.restoring import sweep_snapshots

ERASE: Final = "erase"
ERASE_BEGAN: Final = "erase.began"
_ATTEMPTS: Final = 10
_STILL_COMING: Final = (
    "events of the account still arrive, or its files are rewritten by others all the time: what was there is erased, "
    "but not proven to be; close the account first, and run it again once its events have stopped"
)
_ONE_FILE: Final = 1 << 60
"""Bytes of a file's new version: a file stays one."""


@dataclass(slots=True)
class Found:
    """What there is of an account.

    Attributes:
        rows: that readers see, by table.
        files: that hold them, by table.
        bytes: of these files.
        alerts: in the catalog.
        snapshots: that know it.
        mentions: rejects of other forms that hold its id; they stay.
    """

    rows: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    alerts: int = 0
    snapshots: int = 0
    mentions: int = 0


@dataclass(slots=True)
class Erased:
    """What was done.

    Attributes:
        audit_id: of the record in the catalog.
        files: that were rewritten.
        rows: that were left out, by table.
        alerts: that were removed from the catalog.
        decisions: verdicts and exceptions that were removed from it.
        snapshots: that were rewritten.
        partitions: that were taken over.
        left_in_lake: rows that a query by the catalog finds afterwards, by table.
        left_on_disk: rows in any file below the lake's tables, `_rewrites` or `_replacing`, by table.
        left_in_annexes: of these, rows that replacements have read and not put in their place, by their folders.
        unread: files of such replacements that were not written to their end: nobody can tell what they hold.
        left_in_snapshots: snapshots on disk that know it.
        left_alerts: in the catalog.
        left_decisions: lines in the lake's copy of what people decided.
        aside: whether there are files in `_quarantine`, which nobody looks into.
        unkeyed: records of the audit log that are older than the catalog's key, whose plain hash of the id stays.
        mentions: rejects of other forms that hold its id; they stay.
    """

    audit_id: str = ""
    files: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    alerts: int = 0
    decisions: int = 0
    snapshots: int = 0
    partitions: int = 0
    left_in_lake: dict[str, int] = field(default_factory=dict)
    left_on_disk: dict[str, int] = field(default_factory=dict)
    left_in_annexes: dict[str, int] = field(default_factory=dict)
    unread: int = 0
    left_in_snapshots: int = 0
    left_alerts: int = 0
    left_decisions: int = 0
    aside: bool = False
    unkeyed: int = 0
    mentions: int = 0

    @property
    def found_any(self) -> bool:
        """Whether there was anything to erase."""
        return any((self.files, self.alerts, self.decisions, self.snapshots))

    @property
    def is_proven(self) -> bool:
        """Whether nothing is left that was looked for."""
        left = (self.unread, self.left_in_snapshots, self.left_alerts, self.left_decisions)
        return not any((*self.left_in_lake.values(), *self.left_on_disk.values(), *left))


class Eraser(Rewriter):
    """Erases one account."""

    def __init__(  # a lake, a clock, and whom
        self,
        lake: Lake,
        catalog: Catalog,
        ledger: RewriteLedger,
        clock: Clock,
        account_id: str,
        step: Callable[[str], object] = lambda _name: None,
    ) -> None:
        """Say where and whom; see `Rewriter`."""
        super().__init__(lake, catalog, ledger, clock, step)
        self._named = Named(account_id)

    def find(self) -> Found:
        """Look for it, and change nothing."""
        found = Found(alerts=self._alerts())
        for file, rows in self._files():
            found.rows[file.table_name] = found.rows.get(file.table_name, 0) + rows
            found.files[file.table_name] = found.files.get(file.table_name, 0) + 1
            found.bytes += file.bytes
        found.snapshots = sum(1 for partition in self._catalog.offsets() for _ in self._dirty(partition))
        found.mentions = self._mentions()
        return found

    def erase(self, grace_s: float = 0) -> Erased:
        """Erase it, prove it, and write the audit record.

        Args:
            grace_s: how long files that held it stay on disk for queries that have begun.

        Raises:
            RetryableError: the lake or the catalog fails, or rows of it are landed all the time.
            SchemaError: a file or a snapshot cannot be read, so that it cannot be told whether it holds the account.
        """
        done = Erased()
        self._note_begun()
        for _ in range(_ATTEMPTS):
            self._rewrite_files(done)
            for partition in self._catalog.offsets():
                self._forget(partition, done)
            if not any(True for _ in self._files()):
                break
        else:
            raise RetryableError(_STILL_COMING)
        erased = self._ledger.erase_account(self._named.account_id, self._clock.now_us())
        done.alerts += erased.alerts
        done.decisions += erased.decisions
        done.unkeyed = erased.unkeyed
        self._forget_in_copy()
        self._step("alerts erased")
        tidy(self._lake, self._ledger, self._clock.now_us(), grace_s, self._step)
        self._prove(done)
        done.audit_id = self._ledger.note(
            ERASE, self._record(done, grace_s), self._clock.now_us(), account_id=self._named.account_id
        )
        copies.keep(self._lake.root, self._catalog)
        self._step("noted")
        return done

    def _note_begun(self) -> None:
        """Put on record what there is: were this run killed, the next one's record would count only what it left."""
        found = asdict(self.find())
        if any(found.values()):
            self._ledger.note(ERASE_BEGAN, {"found": found}, self._clock.now_us(), account_id=self._named.account_id)

    def _forget_in_copy(self) -> None:
        try:
            copies.forget(self._lake.root, self._catalog, self._named.account_id)
        except OSError as error:
            raise RetryableError(f"lake {self._lake.root}: {error.strerror or error}") from error

    def _rewrite_files(self, done: Erased) -> None:
        for _ in range(_ATTEMPTS):
            files = list(self._files())
            if not files:
                return
            for file, rows in files:
                if self._rewrite(file):
                    done.files += 1
                    done.rows[file.table_name] = done.rows.get(file.table_name, 0) + rows
        raise RetryableError(_STILL_COMING)

    def _rewrite(self, file: FileEntry) -> bool:
        """Rewrite one file; false where another rewrite was faster, and its outputs are to be looked for."""
        rewrite_id = self._ledger.begin(ERASE, self._clock.now_us())
        self._step("begun")
        try:
            one = read_input(self._lake, file)
            limits = Limits(file_bytes=_ONE_FILE)
            table = file.table_name
            outputs = write_outputs(self._lake, rewrite_id, [one], limits, lambda rows: self._named.others(table, rows))
            self._step("written")
            self._ledger.swap(rewrite_id, [file], outputs, self._clock.now_us())
        except FencedError:
            discard(self._lake, self._ledger, rewrite_id)
            return False
        except (SchemaError, RetryableError):
            discard(self._lake, self._ledger, rewrite_id)
            if (self._lake.root / file.path).exists():
                raise
            return False  # another rewrite has replaced it, and its grace period was over at once
        except BaseException:
            discard(self._lake, self._ledger, rewrite_id)
            raise
        self._step("swapped")
        return True

    def _forget(self, partition: Partition, done: Erased) -> None:
        for _ in range(_ATTEMPTS):
            for former, body in self._dirty(partition):
                done.snapshots += self._replace(former, body)
            take_over(self._lake, self._catalog, partition)
            sweep_snapshots(self._lake, self._catalog, partition)
            self._step("taken over")
            if not any(True for _ in self._dirty(partition)):
                done.partitions = max(done.partitions, len(self._catalog.offsets()))
                return
        raise RetryableError(
            f"{partition}: its workers write the account into snapshots all the time; run it again later"
        )

    def _replace(self, former: SnapshotEntry, body: bytes) -> bool:
        """Put a snapshot without the account in the place of one with it."""
        new = self._lake.write_snapshot(former, body)
        self._step("snapshot written")
        swapped = self._ledger.replace_snapshot(former, new)
        self._step("snapshot swapped")
        if not swapped:
            self._lake.remove_snapshots([new.path])
            return False
        if not (self._lake.root / new.path).exists():
            # The partition's worker removes files that the catalog does not list, which this one was a moment ago.
            (self._lake.root / new.path).write_bytes(body)
        self._lake.remove_snapshots([former.path])
        return True

    def _dirty(self, partition: Partition) -> Iterator[tuple[SnapshotEntry, bytes]]:
        """Snapshots that know the account, each with what it is to be."""
        for entry in self._catalog.snapshots(partition):
            try:
                blob = self._lake.read_snapshot(entry)
            except SchemaError:
                if entry in self._catalog.snapshots(partition) and (self._lake.root / entry.path).exists():
                    raise
                continue  # not placed yet, which the take-over does, or removed since
            clean = without_account(blob, self._named.account_id)
            if clean is not None:
                yield entry, clean

    def _files(self) -> Iterator[tuple[FileEntry, int]]:
        """Files that readers see and that hold the account, with how many rows."""
        for table in TABLES:
            files = {file.path: file for file in self._catalog.live_files(table)}
            for path, rows in self._rows_in(table, list(files)).items():
                if path in files:  # else it has come since, and the next look finds it
                    yield files[path], rows

    def _rows_in(self, table: str, paths: list[str]) -> Mapping[str, int]:
        for _ in range(_ATTEMPTS):
            try:
                return self._named.rows_in(table, self._lake.root, paths)
            except SchemaError:
                if all((self._lake.root / path).exists() for path in paths):
                    raise
                paths = [file.path for file in self._catalog.live_files(table)]  # a rewrite was settled meanwhile
        raise RetryableError(_STILL_COMING)

    def _alerts(self) -> int:
        return len(self._catalog.alerts(AlertFilter(entity_id=self._named.account_id)))

    def _prove(self, done: Erased) -> None:
        done.left_in_lake = dict.fromkeys(TABLES, 0)
        for file, rows in self._files():
            done.left_in_lake[file.table_name] += rows
        for table in TABLES:
            done.left_on_disk[table] = self._on_disk(table)
            done.left_on_disk[table] += self._look_aside(table, done)
        done.left_in_snapshots = sum(map(self._knows, self._lake.snapshot_files()))
        done.left_alerts = self._alerts()
        done.left_decisions = copies.lines_about(self._lake.root, self._named.account_id)
        done.aside = any((self._lake.root / "_quarantine").rglob("*.*"))
        done.mentions = self._mentions()

    def _on_disk(self, table: str) -> int:
        """Rows in any file below the lake's tables and `_rewrites`; others may remove files meanwhile."""
        for _ in range(_ATTEMPTS):
            paths = [
                path.relative_to(self._lake.root).as_posix()
                for pattern in (f"{table}/**/*.parquet", f"{REWRITES}/*/{table}/**/*.parquet")
                for path in self._lake.root.glob(pattern)
            ]
            try:
                return sum(self._named.rows_in(table, self._lake.root, paths).values())
            except SchemaError:
                if all((self._lake.root / path).exists() for path in paths):
                    raise
        raise RetryableError(_STILL_COMING)

    def _look_aside(self, table: str, done: Erased) -> int:
        """Rows that replacements have read and not put in their place: staged, or landed where nobody sees them."""
        count = 0
        for path in self._lake.root.glob(f"{ANNEXES}/*/**/{table}/**/*.parquet"):
            name = path.relative_to(self._lake.root)
            try:
                rows = sum(self._named.rows_in(table, self._lake.root, [name.as_posix()]).values())
            except SchemaError:
                done.unread += path.exists()  # else it was placed or given up this moment
                continue
            if rows:
                folder = Path(*name.parts[:2]).as_posix()
                done.left_in_annexes[folder] = done.left_in_annexes.get(folder, 0) + rows
                count += rows
        return count

    def _mentions(self) -> int:
        for _ in range(_ATTEMPTS):
            files = [file.path for file in self._catalog.live_files(REJECTS)]
            try:
                return self._named.mentions_in(self._lake.root, files)
            except SchemaError:
                if [file.path for file in self._catalog.live_files(REJECTS)] == files:
                    raise
        raise RetryableError(_STILL_COMING)

    def _knows(self, snapshot: Path) -> bool:
        """Whether a snapshot on disk, listed or not, knows the account."""
        try:
            blob = (self._lake.root / snapshot).read_bytes()
        except FileNotFoundError:
            return False  # its worker has taken a newer one
        return without_account(blob, self._named.account_id) is not None

    def _record(self, done: Erased, grace_s: float) -> dict[str, object]:
        """What is kept of an erasure; whom it was of is found by who knows the id, and is not said."""
        said = {name: value for name, value in asdict(done).items() if name != "audit_id"}
        return {"grace_s": grace_s, "proven": done.is_proven, **said}
