"""The orphan sweep: what crashes left behind and nothing needs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Final

from pipeline.commits import Commit, Manifest
from pipeline.errors import SchemaError
from pipeline.io.catalog import Catalog
from pipeline.io.footers import Made, read_footer, said_by
from pipeline.io.lake import Lake, final_path
from pipeline.io.rewriting import annex
from pipeline.io.rewriting.ledger import SETTLED, SWAPPED, WRITING, RewriteLedger
from pipeline.io.rewriting.settling import rewrite_folders, tidy

ABANDONED_S: Final = 86_400.0
"""How long a replacement may lie before nobody is expected to go on with it."""


@dataclass(slots=True)
class Swept:
    """What was found, and removed if that was asked for.

    Attributes:
        orphans: files below the tables that nothing lists.
        staged: commits that have something staged and can never be made.
        died: rewrites that died before their swap, or that nothing lists.
        replacements: `backfill --replace` that was begun and not gone on with: what it has read, and no more.
        due: rewrites whose grace period is over.
        removed: files that were replaced or too old, and are gone now.
        removed_bytes: their size.
    """

    orphans: list[str] = field(default_factory=list)
    staged: list[str] = field(default_factory=list)
    died: list[str] = field(default_factory=list)
    replacements: list[str] = field(default_factory=list)
    due: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    removed_bytes: int = 0


def sweep_lake(  # noqa: PLR0913  # where, when and whether
    lake: Lake,
    catalog: Catalog,
    ledger: RewriteLedger,
    now_us: int,
    grace_s: float,
    *,
    apply: bool,
    abandoned_s: float = ABANDONED_S,
) -> Swept:
    """Find what nothing needs, and remove it if asked to.

    Files are listed before the catalog is asked: one that comes later is a worker's.

    Args:
        lake: the files.
        catalog: what is needed of them.
        ledger: of rewrites, in the same catalog.
        now_us: wall clock.
        grace_s: how long replaced files stay.
        apply: remove it.
        abandoned_s: how long nobody has gone on with a replacement that is given up.

    Raises:
        RetryableError: the lake or the catalog fails.
    """
    placed = [path.as_posix() for path in lake.final_files()]
    staged = _staged(lake)
    folders = rewrite_folders(lake)
    manifest = catalog.manifest()
    swept = Swept()
    listed = {file.path for files in (*manifest.live.values(), *manifest.pending.values()) for file in files}
    listed |= {*manifest.retired, *(file.path for file in manifest.rewritten)}
    listed |= {final_path(path) for path in listed}
    swept.orphans = sorted(path for path in placed if path not in listed)
    swept.orphans = [path for path in swept.orphans if (lake.root / path).exists()]
    dead = [commit for commit in staged if _is_dead(commit, manifest)]
    swept.staged = [commit.commit_id for commit in dead]
    before_us = now_us - int(grace_s * 1e6)
    swept.died = [rewrite.rewrite_id for rewrite in ledger.due((WRITING,), before_us)]
    swept.died += sorted(set(folders) - ledger.known() - set(swept.died))
    swept.due = [f"{rewrite.kind} {rewrite.rewrite_id}" for rewrite in ledger.due((SWAPPED, SETTLED), before_us)]
    left = annex.unfinished(lake, annex.topics_of(catalog))
    swept.replacements = sorted(name for name, since_s in left.items() if since_s <= now_us / 1e6 - abandoned_s)
    if apply:
        for name in swept.replacements:
            annex.remove_unfinished(lake, name)
        lake.quarantine(swept.orphans)
        for commit in dead:
            lake.discard(commit)
        tidied = tidy(lake, ledger, now_us, grace_s)
        swept.removed, swept.removed_bytes = tidied.removed, tidied.removed_bytes
    return swept


def _staged(lake: Lake) -> list[Commit]:
    """Commits that have files staged; what cannot be read is being written."""
    found: dict[str, Commit] = {}
    for path in lake.staged_files():
        with contextlib.suppress(SchemaError):
            said = said_by(read_footer(lake.root / path)[0])
            if isinstance(said, Made):
                found[said.commit.commit_id] = said.commit
    return list(found.values())


def _is_dead(commit: Commit, manifest: Manifest) -> bool:
    """Whether a staged commit can never be made: the offset has passed where it would begin, by another commit."""
    passed = manifest.offsets.get(commit.partition, 0) > commit.first_offset
    return passed and commit.commit_id not in manifest.pending
