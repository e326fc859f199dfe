"""`stillwatch backfill --give-up FILE`: a file that was landed in part and is lost, or has changed, holds no feed.

A feed is a log: what comes later is landed only when all before it is.  What is landed of the file stays, the rest of
its rows is passed over in each partition by a commit without rows, and the feed goes on behind it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from pathlib import Path

from jobs.backfill_watched import finish_what_was_left
from jobs.backfill_wish import Wish
from jobs.consoles import console
from pipeline.backfilling.planning import unfinished
from pipeline.batch import Partition
from pipeline.commits import Commit
from pipeline.config import Settings
from pipeline.counted import counted
from pipeline.errors import ConfigError
from pipeline.io.catalog import Catalog
from pipeline.io.clock import SystemClock
from pipeline.io.desk.audit_log import Act
from pipeline.io.lake import Lake
from pipeline.sources import FeedFile

GIVE_UP = "backfill.given_up"
_HASH_SHOWN_MIN = 8


def backfill_give_up(wish: Wish, settings: Settings) -> None:
    """Let a feed go on behind a file that cannot be finished, or say that it would."""
    storage = Lake.open(settings.lake, create=False)
    with contextlib.closing(Catalog.open(settings.catalog_url, create=False)) as ledger:
        place = _found(wish, ledger)
        if wish.dry_run:
            stands = _stands(ledger, place)
            left = max(place.next_offset - stand for stand in stands.values())
            _print(
                f"{place.name}: of its {counted(place.rows, 'row')} up to {left:,} would be given up "
                "without being landed"
            )
            _print("nothing was changed; without --dry-run it is done")
            return
        finish_what_was_left(storage, ledger)
        worker, now_us = f"{socket.gethostname()}:{os.getpid()} gave up", SystemClock().now_us()
        for partition, stand in _stands(ledger, place).items():
            claim = ledger.start_at(partition, stand)  # from here on nobody else lands anything of it
            if claim.next_offset < place.next_offset:
                passed = Commit(
                    uuid.uuid4().hex, partition, claim.next_offset, place.next_offset, events=0, rejects=0,
                    committed_at_us=now_us, worker=worker,
                )  # fmt: skip
                ledger.commit(passed, claim.epoch, [], claim.mark)
        details = {"feed": wish.feed_name, "file": place.name, "sha256": place.of.sha256, "rows": place.rows}
        ledger.desk.audit.record(Act(GIVE_UP, worker, details=details), now_us)
    _print(f"{place.name} is given up: what is landed of it stays, and the feed {wish.feed_name} goes on behind it")


def _found(wish: Wish, ledger: Catalog) -> FeedFile:
    """The file that holds the feed.

    Raises:
        ConfigError: no file does, or another one.
    """
    name = wish.give_up or ""
    holding = unfinished(ledger.sources.files_of(wish.topic), ledger.offsets(), wish.topic)
    if not holding:
        raise ConfigError(f"--give-up {name}: no file of the feed {wish.feed_name} is landed in part, so none holds it")
    first = holding[0]
    by_hash = len(name) >= _HASH_SHOWN_MIN and first.of.sha256.startswith(name)
    if not (by_hash or name in (first.name, Path(first.name).name)):
        raise ConfigError(
            f"--give-up {name}: the feed {wish.feed_name} is held by {first.name} (SHA-256 {first.of.sha256[:12]}…): "
            "name that one, as it was called or by its SHA-256"
        )
    return first


def _stands(ledger: Catalog, place: FeedFile) -> dict[Partition, int]:
    """Where each partition of a file's feed stands."""
    offsets = ledger.offsets()
    count = ledger.sources.feed_of(place.topic) or 0
    return {at: offsets.get(at, 0) for at in (Partition(place.topic, number) for number in range(count))}


def _print(text: str) -> None:
    console().print(text, highlight=False, soft_wrap=True)
