"""Identity: from how many places, with how many clients and keys, an account is used.

A network is the /24 of an IPv4 address, the first three groups of an IPv6 address, or the whole of what a gateway sends
in its place (a keyed hash, say).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from pipeline.features.clock import HOUR
from pipeline.features.events import Events
from pipeline.features.family import Family
from pipeline.features.feature import Feature
from pipeline.features.fields import DAY, View, bitmap, mix
from pipeline.features.flat import flat
from pipeline.features.folding import Views
from pipeline.features.hashing import Hashes, joined
from pipeline.features.integers import Floats, distinct_bits, ratio, top_share
from pipeline.features.panes import Panes
from pipeline.text_views import PADDING, ViewsBuilder

_ZERO, _NINE = np.uint8(ord("0")), np.uint8(9)
_POINT: Final = ord(".")
_COLON: Final = ord(":")
_GROUPS: Final = 3
"""Of an IPv6 address that make a network."""

_AGENCIES: Final = "NSA/CISA/FBI AA26-251A, September 2026: many addresses and user agents per account"

_KINDS: Final = (
    # name, column, words
    ("networks", "client_ip", "networks"),
    ("countries", "country", "countries"),
    ("asns", "asn", "network operators"),
    ("agents", "user_agent", "client programs"),
    ("tls", "tls_ja4", "TLS fingerprints"),
    ("keys", "api_key_id", "API keys"),
)

if TYPE_CHECKING:
    import polars as pl
else:
    from pipeline.late import polars as pl
_DISPERSED: Final = (("networks", "networks"), ("agents", "client programs"))

_FEATURES: Final = (
    *(
        Feature(
            f"{name}_7d", "identity", "values", f"distinct values of {column} by linear counting in 64 bits, 7 d view; at most about 266",
            (14, 15), _AGENCIES, f"different {words}",
        )
        for name, column, words in _KINDS
    ),
    Feature(
        "network_top_share_7d", "identity", "share", "largest of 8 hashed counts of networks / their sum, 7 d view",
        (15,), _AGENCIES, "share of requests from the commonest network",
    ),
    *(
        Feature(
            f"{name}_per_key_hour_24h", "identity", "values",
            f"distinct (API key, hour, one of the {words}) / distinct (API key, hour) with any, by linear counting in 128 and 64 bits, 24 h view; the account stands for a key where none is logged",
            (15,), "signal 15: credential dispersion", f"different {words} per API key and hour",
        )
        for name, words in _DISPERSED
    ),
)  # fmt: skip

_FIELDS: Final = (
    *(bitmap(f"{name}_seen") for name, *_ in _KINDS),
    mix("network_mix", 8),
    *(bitmap(f"{name}_key_hours", 1, DAY) for name, _ in _DISPERSED),
    *(bitmap(f"{name}_by_key_hour", 2, DAY) for name, _ in _DISPERSED),
)


def _networks(addresses: pl.Series) -> pl.Series:
    """What each address begins with: up to the last point if only digits follow it; of groups, the first three."""
    data, ends = flat(addresses)
    size = np.diff(ends)
    no_digit = np.append(np.flatnonzero(data - _ZERO > _NINE), -1)  # bytes below "0" wrap around
    last = no_digit[np.searchsorted(no_digit[:-1], ends[1:]) - 1]
    is_four = (last >= ends[:-1]) & (data.take(last, mode="clip") == _POINT) if len(data) else np.zeros(len(size), bool)
    size = np.where(is_four, last + 1 - ends[:-1], size)
    if len(colons := np.flatnonzero(data == _COLON)):
        first, after = np.searchsorted(colons, ends[:-1]), np.searchsorted(colons, ends[1:])
        third = np.append(colons, [0] * _GROUPS)[first + _GROUPS - 1]
        six = np.where(first + _GROUPS <= after, third, ends[1:]) - ends[:-1]
        size = np.where(after > first, six, size)
    views = ViewsBuilder(len(size))
    views.put(np.append(data, np.zeros(PADDING, np.uint8)), ends[:-1], size)
    valid = None if addresses.null_count() == 0 else addresses.is_not_null().to_numpy()
    return pl.Series(pl.from_arrow(views.array(valid, pa.binary_view())))


def _contribute(events: Events, panes: Panes) -> None:
    found = {name: events.hashed(column) for name, column, _ in _KINDS[1:]}
    found["networks"] = events.hashed_as("client_ip", "network", _networks)
    for name, hashes in found.items():
        panes.values(f"{name}_seen", hashes)
    panes.mix("network_mix", found["networks"], events.thinned)
    key_hour = joined(found["keys"], (events.clock // HOUR).astype(np.uint64))
    for name, _ in _DISPERSED:
        values: Hashes = found[name]
        panes.members(f"{name}_key_hours", key_hour, values != 0)
        panes.members(f"{name}_by_key_hour", joined(key_hour, values), values != 0)


def _compute(views: Views) -> dict[str, Floats]:
    found = {f"{name}_7d": distinct_bits(views.cells(View.WEEK, f"{name}_seen")) for name, *_ in _KINDS}
    found["network_top_share_7d"] = top_share(views.cells(View.WEEK, "network_mix"))
    for name, _ in _DISPERSED:
        pairs, hours = (distinct_bits(views.cells(View.DAY, f"{name}_{of}")) for of in ("by_key_hour", "key_hours"))
        found[f"{name}_per_key_hour_24h"] = np.maximum(ratio(pairs, hours), 1)
    return found


FAMILY: Final = Family("identity", _FEATURES, _FIELDS, _contribute, _compute)
