"""The event time that a record states, whether it is an event or not.

An event's is what the decoder reads.  A reject's is what its bytes say in `event_time`, where that much of them can be
read: so a record is of one range or another for the time that it states, and not for what else is wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from pipeline.batch import Partition, Records
from pipeline.decode import Decoder
from pipeline.decoding import exact
from pipeline.text_views import one_chunk

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_NOWHERE: Final = Partition("", 0)


def stated_times(decoder: Decoder, lines: Sequence[bytes]) -> tuple[Ints, Bools]:
    """Event times of records, in microseconds since the epoch, and which of them are known."""
    count = len(lines)
    times, known = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    stamps = np.full(count, -1, np.int64)
    values = pa.array(lines, pa.binary()).cast(pa.binary_view())
    decoded = decoder.decode(Records(_NOWHERE, values, np.arange(count), stamps, count))
    at = decoded.events["offset"].to_numpy()
    times[at] = one_chunk(decoded.events["event_time"]).cast(pa.int64()).to_numpy()
    known[at] = True
    for row in decoded.rejects["offset"].to_pylist():
        stated = stated_time(lines[row])
        if stated is not None:
            times[row], known[row] = stated, True
    return times, known


def stated_time(raw: bytes | None) -> int | None:
    """The event time that the bytes of a reject state; None where it cannot be read."""
    try:
        given = orjson.loads(raw or b"")
    except orjson.JSONDecodeError:
        return None
    stated = given.get("event_time") if isinstance(given, dict) else None
    return exact.micros_of(stated) if isinstance(stated, str) else None
