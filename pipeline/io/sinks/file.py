"""Lines of JSON at the end of a file, on the disk for good before they count as sent."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline.delivery.native import as_native, to_json
from pipeline.delivery.ocsf import as_finding
from pipeline.delivery.parcels import Later, Outcome, Parcel, Sent
from pipeline.delivery.sinks import FileSink, path_of
from pipeline.io.durable import sync_folders
from pipeline.ports import Clock

_MODE: Final = 0o600
_TORN_MAX: Final = 1 << 20
"""A line of ours is shorter."""

_BEGINNINGS: Final = (b'{"type":"', b'{"activity_id":')
"""How lines of ours begin."""


class File:
    """See `Sink`.  The file is opened anew for each batch, so it may be moved away to rotate it."""

    batch_max = 500
    unmarked_max = 500

    def __init__(self, sink: FileSink, clock: Clock) -> None:
        self._path, self._format, self._clock = path_of(sink), sink.format, clock

    def send(self, parcels: Sequence[Parcel]) -> Sequence[Outcome]:
        """Write a batch and wait for the disk: all of it, or nothing."""
        now_us = self._clock.now_us()
        lines = [
            to_json(as_native(parcel) if self._format == "native" else as_finding(parcel, now_us)) for parcel in parcels
        ]
        try:
            _append(self._path, b"".join(line + b"\n" for line in lines))
        except OSError as error:
            return [Later(f"the file cannot be written: {error.strerror or error}", unreachable=True)]
        return [Sent()] * len(parcels)

    def close(self) -> None:
        """Nothing is open."""


def _append(path: Path, content: bytes) -> None:
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        end = _whole_end(descriptor)
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)
    if is_new:
        sync_folders([path.parent.absolute()], path.parent.absolute())


def _whole_end(descriptor: int) -> int:
    """Where the last whole line ends; half a line that a crash left of ours is cut off, for it is written again."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _TORN_MAX, max(0, size - _TORN_MAX))
    torn = tail[tail.rfind(b"\n") + 1 :]
    if not torn:
        return size
    if torn.startswith(_BEGINNINGS) or any(beginning.startswith(torn) for beginning in _BEGINNINGS):
        os.ftruncate(descriptor, size - len(torn))
        return size - len(torn)
    os.write(descriptor, b"\n")  # somebody else's: it stays
    return size + 1
