"""The steps of a commit, each done once, whatever fails in between; `pipeline.stream` says what they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.batch import Decoded, Partition
from pipeline.commits import Commit, FileEntry, LogMark, SnapshotEntry
from pipeline.land import Section, alert_sections, sections, window_sections
from pipeline.orgs import OrgOf, no_org, orgs_of
from pipeline.ports import Ledger, Storage
from pipeline.restoring import sweep_snapshots
from pipeline.watching import Findings


@dataclass(slots=True)
class Writing:
    """A commit under way; kept over tries, so that trying again does the same again.

    Attributes:
        commit: from where to where.
        mark: of the log up to where it moves the offset.
        parts: rows between the two, in offset order.
        findings: what came of them.
        files: staged; None until then.
        snapshot: staged; None until then, and where none is due.
        is_staged: whether all is on disk.
        is_committed: whether the catalog has it.
        is_placed: whether all stands at its final path.
        is_published: whether readers see it.
    """

    commit: Commit
    mark: LogMark
    parts: Sequence[Decoded]
    findings: Findings
    files: list[FileEntry] | None = None
    snapshot: SnapshotEntry | None = None
    is_staged: bool = False
    is_committed: bool = False
    is_placed: bool = False
    is_published: bool = False


class Committer:
    """Takes commits through their steps."""

    def __init__(self, storage: Storage, ledger: Ledger, step: Callable[[str], None], org_of: OrgOf = no_org) -> None:
        self._storage, self._ledger, self._step, self._org_of = storage, ledger, step, org_of

    def advance(self, writing: Writing, epoch: int) -> None:
        """Do the steps that are left.

        Args:
            writing: the commit.
            epoch: of this worker's claim.

        Raises:
            FencedError: another worker has taken the partition over.
            RetryableError: the lake or the catalog fails; call again.
        """
        commit, findings = writing.commit, writing.findings
        if not writing.is_staged:
            self._stage(writing)
        files = writing.files or []
        if not writing.is_committed:
            orgs = orgs_of(findings.alerts, writing.parts, self._org_of)
            self._ledger.commit(
                commit, epoch, files, writing.mark, alerts=findings.alerts, orgs=orgs, snapshot=writing.snapshot,
                verdict_seq=findings.verdict_seq,
            )  # fmt: skip
            writing.is_committed = True
            self._step("committed")
        snapshots = [] if writing.snapshot is None else [writing.snapshot]
        if not writing.is_placed:
            self._storage.place(commit, [*files, *snapshots])
            writing.is_placed = True
            self._step("placed")
        if not writing.is_published:
            self._ledger.publish(commit.commit_id)
            writing.is_published = True
            self._step("published")
        if snapshots:
            sweep_snapshots(self._storage, self._ledger, commit.partition)
            self._step("swept")

    def _stage(self, writing: Writing) -> None:
        if writing.files is None:
            writing.files = self._storage.stage(writing.commit, _sections(writing))
        if writing.findings.snapshot is not None:
            writing.snapshot = self._storage.stage_snapshot(writing.commit, writing.findings.snapshot)
        writing.is_staged = True
        self._step("staged")


def finish_pending(storage: Storage, ledger: Ledger, partition: Partition) -> list[Commit]:
    """Place and publish what was committed and not shown yet; says what that was.

    Whoever does so, and however many at once: renaming what is in place already, and publishing it, change nothing.

    Raises:
        RetryableError: the lake or the catalog fails; call again.
    """
    finished = []
    for commit, files in ledger.pending(partition).items():
        storage.place(commit, files)
        ledger.publish(commit.commit_id)
        finished.append(commit)
    return finished


def _sections(writing: Writing) -> list[Section]:
    """What becomes files: the rows, and what was found about them."""
    rows = sections(writing.parts) if writing.parts else ()
    return [*rows, *window_sections(writing.findings.windows), *alert_sections(writing.findings.alerts)]
