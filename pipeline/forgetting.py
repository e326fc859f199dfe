"""A snapshot without one account: what is known of it goes, what is known of all others stays to the bit.

What goes: its row among the account states, the things that it shared with others, its say in what time it is, and
which alerts were raised of it.
What stays: what the models learned from all accounts together, which names nobody.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.alerts import without_nul
from pipeline.features.hashing import joined, keys
from pipeline.snapshots import Part, label_of, pack, unpack

_BATCH_ROWS: Final = 8192


def without_account(blob: bytes, account_id: str) -> bytes | None:
    """Take an account out of a snapshot.

    Args:
        blob: what `Analysis.snapshot` gave.
        account_id: whose trace is to go.

    Returns:
        The snapshot without it; None where it held nothing of it.

    Raises:
        SchemaError: it is damaged, or of another version.
    """
    label = label_of(blob)
    found = unpack(blob, label)
    parts = {name: part.read_all() if isinstance(part, pa.RecordBatchReader) else part for name, part in found.items()}
    kept = {name: _without(part, account_id) for name, part in parts.items()}
    if all(kept[name] is part for name, part in parts.items()):
        return None
    for name, part in kept.items():
        if isinstance(found[name], pa.RecordBatchReader) and isinstance(part, pa.Table):
            kept[name] = part.to_reader(_BATCH_ROWS)  # as it was: read batch by batch, and compressed
    return pack(label, kept)


def _without(part: Part, account_id: str) -> Part:
    """A part without what it keeps by the account's id; the part itself where that is nothing."""
    if isinstance(part, dict) and "watermark" in part:
        return _without_votes(part, int(keys([account_id])[0]))
    if not isinstance(part, pa.Table):
        return part
    names = set(part.column_names)
    if "account_id" in names:
        stays = pc.not_equal(part["account_id"], pa.scalar(account_id, part.schema.field("account_id").type))
    elif {"pair", "thing"} <= names:
        things = part["thing"].to_numpy()
        mine = joined(things, np.full(len(things), keys([account_id])[0]))
        stays = pa.array(part["pair"].to_numpy() != mine)
    elif "key" in names:
        # of a verdict the key is that of the id as the catalog keeps it
        stays = pa.array(~np.isin(part["key"].to_numpy(), keys([account_id, without_nul(account_id)])))
    else:
        return part
    if pc.all(stays, min_count=0).as_py():
        return part
    return part.filter(stays).combine_chunks()


def _without_votes(state: dict[str, Any], key: int) -> dict[str, Any]:
    """The partition's state without an account's latest times, by which it had a say in what time it is."""
    mark = state["watermark"]
    stays = [number for number, whose in enumerate(mark["keys"]) if whose != key]
    if len(stays) == len(mark["keys"]):
        return state
    kept = {name: [mark[name][number] for number in stays] for name in ("keys", "times")}
    return {**state, "watermark": {**mark, **kept}}
