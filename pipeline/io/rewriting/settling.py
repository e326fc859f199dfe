"""What comes after a swap: outputs get their final names, what they replaced is removed, and traces of crashes go.

Each step can be done again, by anybody, at any time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeline.errors import RetryableError
from pipeline.io.durable import sync_folders
from pipeline.io.lake import REWRITES, Lake, final_path
from pipeline.io.rewriting.annex import remove_settled
from pipeline.io.rewriting.ledger import SETTLED, SWAPPED, WRITING, RewriteLedger
from pipeline.io.rewriting.writing import REWRITTEN

GRACE_S: Final = 3600.0
"""How long a reader may hold a list of files."""


@dataclass(slots=True)
class Tidied:
    """What was done.

    Attributes:
        settled: rewrites whose outputs are in their tables now.
        removed: files that were replaced, or too old, and are gone now.
        removed_bytes: their size.
        given_up: rewrites that died before their swap.
        waiting: rewrites that wait for the grace period to end.
    """

    settled: int = 0
    removed: list[str] = field(default_factory=list)
    removed_bytes: int = 0
    given_up: int = 0
    waiting: int = 0


def tidy(
    lake: Lake,
    ledger: RewriteLedger,
    now_us: int,
    grace_s: float = GRACE_S,
    step: Callable[[str], object] = lambda _name: None,
) -> Tidied:
    """Settle and finish all rewrites that are due.

    Args:
        lake: the files.
        ledger: the rewrites.
        now_us: wall clock.
        grace_s: how long each waits after its last step.
        step: told of each step that was done.

    Raises:
        RetryableError: the lake or the catalog fails.
    """
    done = Tidied()
    folders = rewrite_folders(lake)  # before the catalog is asked: what comes later is somebody's who works
    before_us = now_us - int(grace_s * 1e6)
    for rewrite in ledger.due((SWAPPED,), before_us):
        settle(lake, ledger, rewrite.rewrite_id, now_us, done, step)
    for rewrite in ledger.due((SETTLED,), before_us):
        if not any(path.startswith(f"{REWRITES}/") for path in rewrite.outputs.values()) and ledger.forget(rewrite):
            _remove_folder(lake, rewrite.rewrite_id)
            step("finished")
    for rewrite in ledger.due((WRITING,), before_us):
        if ledger.forget(rewrite):
            _remove_folder(lake, rewrite.rewrite_id)
            done.given_up += 1
    for name in sorted(set(folders) - ledger.known()):
        _remove_folder(lake, name)
    remove_settled(lake, ledger)
    done.waiting = len(ledger.due((SWAPPED, SETTLED), now_us))
    return done


def settle(  # what is settled, where, and who is told
    lake: Lake, ledger: RewriteLedger, rewrite_id: str, now_us: int, done: Tidied, step: Callable[[str], object]
) -> None:
    """Put a swapped rewrite's outputs into their tables and remove what they replaced.

    Rewrites that made its inputs come first, whatever their grace: else a glob would see both their inputs and these
    outputs.
    """
    for other in ledger.makers_of(rewrite_id):
        settle(lake, ledger, other, now_us, done, step)
    rewrite = ledger.find(rewrite_id)
    if rewrite is None or rewrite.state != SWAPPED:
        return
    try:
        final = {file_id: final_path(path) for file_id, path in rewrite.outputs.items()}
        link(lake, [(path, final[file_id]) for file_id, path in rewrite.outputs.items()])
        step("linked")
        for path in rewrite.inputs:
            _remove(lake, path, done)
        parents = {(lake.root / path).parent for path in rewrite.inputs}
        sync_folders({folder for folder in parents if folder.is_dir()}, lake.root)
    except OSError as error:
        raise RetryableError(f"lake {lake.root}: {error.strerror or error}") from error
    step("removed")
    ledger.settle(rewrite, final, now_us)
    done.settled += 1
    step("settled")


def discard(lake: Lake, ledger: RewriteLedger, rewrite_id: str) -> None:
    """Give up a rewrite that was not swapped; where the catalog does not answer, `tidy` does later."""
    with contextlib.suppress(RetryableError):
        rewrite = ledger.find(rewrite_id)
        if rewrite is None or (rewrite.state == WRITING and ledger.forget(rewrite)):
            _remove_folder(lake, rewrite_id)


def half_settled(lake: Lake, settled: Collection[str]) -> dict[str, str]:
    """Files of rewrites of which some, but not these, have got their names in their tables: their paths by those names.

    Args:
        lake: the files.
        settled: names of the rewritten files that stand in their tables.
    """
    found: dict[str, str] = {}
    for folder in rewrite_folders(lake):
        paths = [
            path.relative_to(lake.root).as_posix()
            for path in sorted((lake.root / REWRITES / folder).rglob(f"{REWRITTEN}*.parquet"))
        ]
        if any(Path(path).name in settled for path in paths):
            found |= {final_path(path): path for path in paths if Path(path).name not in settled}
    return found


def link(lake: Lake, pairs: Sequence[tuple[str, str]]) -> None:
    """Give files second names, where they have none; where the file system knows no such thing, copies."""
    for path, final in pairs:
        there, wanted = lake.root / path, lake.root / final
        if there == wanted or wanted.exists():
            continue
        wanted.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(there, wanted)
        except FileExistsError:
            continue
        except FileNotFoundError:
            raise
        except OSError:
            _copy(there, wanted)
    sync_folders({(lake.root / final).parent for _, final in pairs}, lake.root)


def _copy(there: Path, wanted: Path) -> None:
    temporary = wanted.with_name(f"{wanted.name}.copy")
    with there.open("rb") as source, temporary.open("wb") as target:
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())
    temporary.replace(wanted)


def _remove(lake: Lake, path: str, done: Tidied) -> None:
    """Remove a file, by all its names.  Its folder stays, if empty: a worker may be about to place a late row there."""
    file, size = lake.root / path, 0
    names = [file]
    if file.name.startswith(REWRITTEN):
        names += [lake.root / REWRITES / name / path for name in rewrite_folders(lake)]
    for name in names:
        try:
            size = name.stat().st_size
            name.unlink()
        except FileNotFoundError:
            continue
        if path not in done.removed[-1:]:
            done.removed.append(path)
            done.removed_bytes += size


def rewrite_folders(lake: Lake) -> list[str]:
    """Ids of the rewrites that have a folder in the lake.

    Raises:
        RetryableError: the disk fails.
    """
    try:
        return sorted(entry.name for entry in (lake.root / REWRITES).iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RetryableError(f"lake {lake.root}: {error.strerror or error}") from error


def _remove_folder(lake: Lake, rewrite_id: str) -> None:
    shutil.rmtree(lake.root / REWRITES / rewrite_id, ignore_errors=True)
