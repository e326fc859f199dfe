"""Whatever the payloads and however they are batched, the quick way and the exact way are of one mind."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batch import Decoded, Partition
from pipeline.compiled import LOOPS
from pipeline.decode import Decoder
from pipeline.decoding import exact
from pipeline.decoding.direct import DirectDecoder
from pipeline.decoding.pieces import PAYLOAD_BYTES_MAX, pieces
from pipeline.decoding.quick import QuickDecoder
from pipeline.events import DECODED_SCHEMA, REJECT_SCHEMA
from tests.fakes import records_of
from tests.unit.decoding.payloads import BATCHES, EVENT, KNOWN, NOW_MS, VALUES, Record, right_value

P0 = Partition("llm-access", 3)
DECODERS = {"quick": Decoder(QuickDecoder(rows_min=1)), "as it comes": Decoder()}
"""The first takes the quick way wherever it can, also for a single payload of its shape."""
if LOOPS is not None:
    DECODERS["direct"] = Decoder(DirectDecoder(LOOPS))


# ---- the two ways


def decoded(records: Mapping[int, Record], decoder: str = "quick") -> Decoded:
    return DECODERS[decoder].decode(records_of(P0, records, max(records, default=0) + 1))


def one_by_one(records: Mapping[int, Record]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the exact way says of each record alone."""
    events: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    for offset, (value, timestamp) in records.items():
        try:
            events.append({**exact.decode(value, timestamp), "offset": offset})
        except exact.Refusal as refusal:
            said = {"error_type": refusal.error_type, "field": refusal.field, "reason": str(refusal), "raw": value}
            rejects.append({**said, "offset": offset})
    return events, rejects


def rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows without nulls, and without the lineage but the offset."""
    lineage = ("topic", "partition", "kafka_time")
    return [{k: v for k, v in row.items() if v is not None} for row in table.drop_columns(lineage).to_pylist()]


def check(records: Mapping[int, Record]) -> None:
    events, rejects = one_by_one(records)
    for decoder in DECODERS:
        check_one(decoded(records, decoder), records, events, rejects)


def check_one(
    found: Decoded, records: Mapping[int, Record], events: list[dict[str, Any]], rejects: list[dict[str, Any]]
) -> None:
    assert found.events.schema == DECODED_SCHEMA
    assert found.rejects.schema == REJECT_SCHEMA
    assert rows(found.events) == events
    assert rows(found.rejects) == [{k: v for k, v in reject.items() if v is not None} for reject in rejects]
    for table in (found.events, found.rejects):
        table.validate(full=True)
        assert all(table.column(field.name).null_count == 0 for field in table.schema if not field.nullable)
        assert set(table["topic"].to_pylist()) <= {P0.topic}
        assert set(table["partition"].to_pylist()) <= {P0.number}
        for offset, time in zip(
            table["offset"].to_pylist(), table["kafka_time"].cast(pa.int64()).to_pylist(), strict=True
        ):
            timestamp = records[offset][1]
            assert time == (timestamp * 1000 if 0 <= timestamp < 10**13 else None)


def at_offsets(batch: Sequence[Record], step: int = 3) -> dict[int, Record]:
    return {100 + step * number: record for number, record in enumerate(batch)}


@settings(max_examples=150, deadline=None)
@given(BATCHES)
def test_a_batch_is_decoded_as_each_of_its_payloads_alone(batch: list[Record]) -> None:
    check(at_offsets(batch))


@settings(max_examples=40, deadline=None)
@given(BATCHES, st.sampled_from(list(DECODERS)), st.data())
def test_any_cut_of_a_batch_gives_the_same_rows(batch: list[Record], decoder: str, data: st.DataObject) -> None:
    records = at_offsets(batch)
    cut = data.draw(st.integers(0, len(records)))
    whole = decoded(records, decoder)
    parts = [decoded(dict(part), decoder) for part in (list(records.items())[:cut], list(records.items())[cut:])]
    assert pa.concat_tables([part.events for part in parts]).equals(whole.events)
    assert pa.concat_tables([part.rejects for part in parts]).equals(whole.rejects)


def _with(**fields: bytes) -> bytes:
    """An event with further members, as they are written."""
    return orjson.dumps(EVENT)[:-1] + b"".join(b',"%s":%s' % (k.encode(), v) for k, v in fields.items()) + b"}"


PITFALLS = {
    "a value, then null": _with(status=b'200,"status":null'),
    "null, then a value": _with(status=b'null,"status":200'),
    "a required field, then null": _with(status=b'1,"model":null'),
    "its name escaped, then null": _with(status=b'1,"mod\\u0065l":null'),
    "number and text swapped": _with(country=b"200", status=b'"200"'),
    "boolean and text swapped": _with(country=b"true", stream=b'"true"'),
    "boolean and number swapped": _with(stream=b"1", n=b"true"),
    "minutes missing": b'{"event_time":"2026-03-01T12Z","account_id":"a","model":"m"}',
    "zone without colon": b'{"event_time":"2026-03-01T12:00:00+0000","account_id":"a","model":"m"}',
    "too deep to write": _with(x=b"[" * 300 + b"]" * 300),
    "too deep to read": _with(x=b"[" * 1500 + b"]" * 1500),
    "trailing comma": orjson.dumps(EVENT)[:-1] + b",}",
    "a comma and two blanks": orjson.dumps(EVENT)[:-1] + b",  }",
    "a quoted colon in text": _with(prompt=b'"\\":1,\\"status\\":2"'),
    "an unknown integer beyond 64 bits": _with(zz=b"123456789012345678901234567890"),
    "one deep inside": _with(zz=b'[{"a":-12345678901234567890}]', yy=b"1"),
    "an unknown float that is large": _with(zz=b"1e300"),
    "an unknown number of ten thousand digits": _with(zz=b"1" * 10_000),
    "an unknown null": _with(unknown=b"null"),
    "a text that ends twice": _with(prompt=b'"x"y"'),
    "two texts for one value": _with(prompt=b'"x","y"'),
    "an escaped quote at the end, a bare one elsewhere": _with(prompt=b'"x\\"', country=b'"y"z"'),
    "an escape that swallows the end": _with(prompt=b'"x\\"'),
    "an unknown number written at length": _with(zz=b"1e2", yy=b"1.50", xx=b"-0"),
    "nanoseconds": _with().replace(b"12:00:00.000Z", b"12:00:00.123456789Z"),
    "many blanks at the end": _with() + b" " * 40,
    "a very long key": _with(**{"k" * 5_000: b"1"}),
    "a null and a longer name": _with(
        input_tokens=b"5", cached_input_tokens=b"null", prompt=b'"x"', system_prompt=b"null"
    ),
}


@pytest.mark.parametrize("name", PITFALLS)
@pytest.mark.parametrize("neighbours", (0, 3))
def test_pitfalls(name: str, neighbours: int) -> None:
    right = (orjson.dumps({**EVENT, "status": None, "temperature": 0.5}), NOW_MS)
    check(at_offsets([*[right] * neighbours, (PITFALLS[name], NOW_MS), *[right] * neighbours]))


def test_an_unknown_integer_of_any_size_is_kept_as_it_came() -> None:
    number = 123456789012345678901234567890
    found = decoded(at_offsets([(_with(zz=b"[%d,2]" % number), NOW_MS)])).events["extra"].to_pylist()
    assert json.loads(found[0]) == {"zz": [number, 2]}


def test_objects_are_written_in_the_order_of_their_own_keys() -> None:
    """What is unknown is kept as it came, though neighbours of another shape have it the other way round."""
    one, other = _with(zz=b"1", yy=b"2"), _with(yy=b"2", zz=b"1")
    check(at_offsets([(payload, NOW_MS) for payload in [one, other] * 20]))


def test_what_has_too_many_quotes_is_seen_among_any_number_of_others() -> None:
    """Quotes are counted of all payloads together first, and only then one by one."""
    right = orjson.dumps({**EVENT, "prompt": "x"})
    for wrong in (b'"x"y"', b'"x","y"', b'"x\\"'):
        for others in (0, 1, 50):
            payloads = [right] * others + [_with(prompt=wrong)] + [right] * others
            check(at_offsets([(payload, NOW_MS) for payload in payloads]))


def test_rows_that_merely_seem_alike_are_told_apart() -> None:
    """This key gives its object, with one key more, the sum by which the others are known."""
    odd = _with(**{"?UghtsX*>?smUzCW": b"1"})
    for payloads in ([orjson.dumps(EVENT)] * 40 + [odd], [odd] + [orjson.dumps(EVENT)] * 40, [b'{"x":1}', odd] * 30):
        check(at_offsets([(payload, NOW_MS) for payload in payloads]))


def test_the_blanks_behind_one_payload_are_not_looked_for_in_all() -> None:
    """40,000 rows and 100,000 blanks would be as many looks as there are bytes in a disk."""
    payloads = [orjson.dumps(EVENT)] * 3_000 + [orjson.dumps(EVENT) + b" " * 900_000]
    assert quickly(payloads, rows_min=24) == list(range(3_000))
    check(at_offsets([(payload, NOW_MS) for payload in payloads[-3:]]))


@pytest.mark.parametrize("decoder", DECODERS)
def test_texts_do_not_keep_what_they_came_in(decoder: str) -> None:
    """Rows wait for their commit; the payloads that they came from must not wait with them."""
    payloads = [orjson.dumps({**EVENT, "request_id": f"request-{n:09}", "zz": "x" * 1_000}) for n in range(2_000)]
    events = decoded(at_offsets([(payload, NOW_MS) for payload in payloads]), decoder).events
    assert sum(events[name].nbytes for name in ("request_id", "account_id", "model")) < 100 * len(payloads)


@pytest.mark.parametrize("shift", range(4))
def test_broken_json_in_any_script_is_a_reject(shift: int) -> None:
    broken = b'{"x":"' + b"a" * shift + "€".encode() * 500
    check(at_offsets([(orjson.dumps(EVENT), NOW_MS), (broken, NOW_MS)]))


def quickly(payloads: Sequence[bytes], rows_min: int = 1) -> list[int]:
    """Which payloads go the quick way."""
    values, timestamps = pa.array(payloads, pa.binary_view()), np.full(len(payloads), NOW_MS)
    return sorted(QuickDecoder(rows_min).decode(values, timestamps).rows.tolist())


def direct_decoder() -> DirectDecoder:
    if LOOPS is None:  # where there is a compiler, tests/unit/test_compiled.py fails instead
        pytest.skip("no compiled code is installed here")
    return DirectDecoder(LOOPS)


def directly(payloads: Sequence[bytes]) -> list[int]:
    """Which payloads go the direct way."""
    values, timestamps = pa.array(payloads, pa.binary_view()), np.full(len(payloads), NOW_MS)
    return sorted(direct_decoder().decode(values, timestamps).rows.tolist())


QUICK = ("a null and a longer name", "an unknown null", "a quoted colon in text")


@pytest.mark.parametrize("name", QUICK)
def test_what_is_common_goes_the_quick_way(name: str) -> None:
    """Else a producer that writes nulls would be many times slower."""
    assert quickly([PITFALLS[name]]) == [0]


def _many(**more: object) -> list[dict[str, object]]:
    return [{**EVENT, "request_id": f"r{n}", "status": 200, "n": n % 3, **more} for n in range(100)]


def hash_of(key: str, seed: int) -> str:
    return hashlib.sha256(f"{seed} {key}".encode()).hexdigest()


COMMON: dict[str, list[bytes]] = {
    "compact": [orjson.dumps(event) for event in _many()],
    "with spaces, as Python writes": [json.dumps(event).encode() for event in _many(prompt="a b", top_p=0.25)],
    "other letters, escaped": [json.dumps(event).encode() for event in _many(prompt="\u4f60\u597d \U0001f600")],
    "other letters": [orjson.dumps(event) for event in _many(prompt="\u4f60\u597d \U0001f600")],
    "escapes": [orjson.dumps(event) for event in _many(prompt='a "b"\n\\c\\', user_agent="x\ty")],
    "a newline at the end": [orjson.dumps(event) + b"\r\n" for event in _many()],
    "all sorts of numbers": [orjson.dumps(event) for event in _many(seed=-(2**40), max_tokens=-1, temperature=1e-7)],
    "nulls in some": [
        orjson.dumps({**event, "top_p": None if n % 2 else 0.5, "org_id": None if n % 3 else "o", "prompt": None})
        for n, event in enumerate(_many())
    ],
    "nanoseconds": [
        orjson.dumps({**event, "event_time": f"2026-03-01T12:00:00.{n * 10_000_019:09}Z"})
        for n, event in enumerate(_many())
    ],
    "many orders of keys": [
        orjson.dumps({key: event[key] for key in sorted(event, key=lambda key: hash_of(key, n % 4))})
        for n, event in enumerate(_many())
    ],
    "two producers": [
        orjson.dumps(dict(reversed(event.items())) if n % 2 else event) for n, event in enumerate(_many())
    ],
    "fields left out in some": [
        orjson.dumps(event if n % 3 else {**event, "stream": True}) for n, event in enumerate(_many())
    ],
}


@pytest.mark.parametrize("name", COMMON)
def test_what_producers_write_goes_the_quick_way(name: str) -> None:
    assert quickly(COMMON[name], rows_min=24) == list(range(100))
    check(at_offsets([(payload, NOW_MS) for payload in COMMON[name]]))


@pytest.mark.parametrize("name", COMMON)
def test_one_payload_of_known_fields_goes_the_direct_way_however_it_is_written(name: str) -> None:
    assert directly(COMMON[name]) == list(range(100))
    assert directly(COMMON[name][7:8]) == [0]


@pytest.mark.parametrize(
    "time", ("2026-03-01T12:00:00.123456789Z", "2026-03-01t13:30:00+01:30", "2024-02-29 23:59:59z")
)
def test_times_go_the_direct_way_whatever_their_zone(time: str) -> None:
    assert directly([orjson.dumps({**EVENT, "event_time": time})]) == [0]


def test_what_is_unknown_does_not_go_the_direct_way() -> None:
    right = orjson.dumps(EVENT)
    assert directly([right, _with(zz=b"1"), right, _with(status=b"2e2"), right]) == [0, 2, 4]


def test_a_log_of_another_kind_is_left_to_other_ways_but_for_a_look_now_and_then() -> None:
    """To read it in vain costs a third of what it costs to read it."""
    decoder, stamps = direct_decoder(), np.full(300, NOW_MS)
    right, unknown = (pa.array([payload] * 300, pa.binary_view()) for payload in (orjson.dumps(EVENT), _with(zz=b"1")))
    assert len(decoder.decode(unknown, stamps).rows) == 0
    proven = [len(decoder.decode(right, stamps).rows) for _ in range(18)]
    assert proven == [0] * 15 + [300] * 3


def test_a_number_with_a_nul_behind_it_is_no_number() -> None:
    check(at_offsets([(_with(top_p=value), NOW_MS) for value in (b"1\0", b"1", b"0.5\0\0", b"1e-1\0")]))


def test_short_payloads_do_not_make_long_pieces() -> None:
    """Room is made for each field of each payload of a piece, however short it is."""
    payloads = pa.array([b'{"x":"%055d"}' % 1] * 40_000, pa.binary_view())
    assert [len(piece.rows) for piece in pieces(payloads)] == [1 << 14, 1 << 14, 40_000 - (2 << 14)]


def test_few_payloads_of_a_shape_are_left_to_the_exact_way() -> None:
    """What is done for thousands at once costs more than the exact way for a few."""
    odd = orjson.dumps({**EVENT, "stream": True})
    payloads = [*COMMON["compact"], *[odd] * 23]
    assert quickly(payloads, rows_min=24) == list(range(100))
    assert quickly([*payloads, odd], rows_min=24) == list(range(124))


MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "set", "cut", "copy"]),
        st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.sampled_from(list(b'"\\:,{} \n\x000123456789-.eEtfnul[]\xc3\xa9u/')),
    ),
    max_size=3,
)


def mutated(payload: bytes, mutations: Sequence[tuple[str, int, int, int]]) -> bytes:
    """A payload with a few bytes changed, wherever they are."""
    found = bytearray(payload)
    for what, one, other, byte in mutations:
        place = one % max(len(found), 1)
        if what == "put":
            found.insert(place, byte)
        elif what == "set":
            found[place : place + 1] = bytes([byte])
        elif what == "cut":
            del found[place : place + 1 + other % 8]
        else:
            begin = other % max(len(found), 1)
            found[place:place] = found[begin : begin + 1 + other % 12]
    return bytes(found)


@st.composite
def alike(draw: st.DrawFn) -> list[Record]:
    """Payloads of one producer, some of them damaged."""
    names = draw(st.lists(KNOWN, max_size=8, unique=True))
    keys = draw(st.permutations([*EVENT, *(name for name in names if name not in EVENT)]))
    space, comma = draw(st.sampled_from([(b"", b""), (b" ", b" "), (b"", b" "), (b" ", b"")]))
    records: list[Record] = []
    for _ in range(draw(st.integers(1, 12))):
        values = [draw(right_value(key) | right_value(key) | st.just(b"null") | VALUES) for key in keys]
        inside = (b"," + comma).join(b'"%s":%s%s' % (k.encode(), space, v) for k, v in zip(keys, values, strict=True))
        payload = b"{" + inside + b"}"
        records.append((mutated(payload, draw(MUTATIONS)) if draw(st.booleans()) else payload, NOW_MS))
    return records


@settings(max_examples=300, deadline=None)
@given(alike())
def test_damage_to_payloads_that_are_written_alike_is_always_seen(batch: list[Record]) -> None:
    check(at_offsets(batch))


# ---- bad input costs its neighbours nothing


@pytest.mark.parametrize(
    "hostile",
    (
        b"[" * 20_000_000,
        b'{"a":' * 4_000_000,
        b"[" * 10_000_000 + b"]" * 10_000_000,
        b'"' + b"a" * 20_000_000,
        b"\xff" * 20_000_000,
        b"[" * (PAYLOAD_BYTES_MAX - 1),
        b'{"event_time":"2026-03-01T12:00:00Z","account_id":"a","model":"m","x":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b"{" + b'"status":200,' * 70_000 + b'"n":1}',
    ),
    ids=["open", "open objects", "nested", "unclosed text", "not text", "as long as may be", "nested in a field", "one field often"],
)  # fmt: skip
def test_a_hostile_payload_is_one_reject_and_its_neighbours_land(hostile: bytes) -> None:
    right = (orjson.dumps(EVENT), NOW_MS)
    records = at_offsets([right, right, (hostile, NOW_MS), right])
    before = _resident_peak_bytes()
    found = decoded(records, "as it comes")
    assert found.events["offset"].to_pylist() == [100, 103, 109]
    assert found.rejects["offset"].to_pylist() == [106]
    assert found.rejects["raw"].to_pylist() == [hostile]
    assert len(found.rejects["reason"][0].as_py()) < 300
    assert _resident_peak_bytes() - before < 16 * max(len(hostile), 4 << 20)


def _resident_peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@pytest.mark.parametrize("field", ("status", "event_time", "stream"))
@pytest.mark.parametrize(
    ("value", "shown"),
    (
        ("the door code is 4711", "a text of 21 characters"),
        ("2026-13-01", "'2026-13-01'"),
        ("", "''"),
        ("7" * 99, "of 99"),
    ),
)
def test_a_reason_quotes_no_text_but_times_and_numbers(field: str, value: str, shown: str) -> None:
    reason = decoded(at_offsets([(orjson.dumps(EVENT | {field: value}), NOW_MS)])).rejects["reason"][0].as_py()
    assert reason.startswith(field)
    assert shown in reason


def test_many_rejects_cost_no_more_than_their_share() -> None:
    """A batch of nothing but rejects, of every kind, among events."""
    bad = [
        b"{broken" * 3,
        b"\xff" * 20,
        None,
        b"",
        orjson.dumps({**EVENT, "status": -1}),
        orjson.dumps({"model": "m" * 20}),
    ]
    batch = [(orjson.dumps({**EVENT, "request_id": str(number)}), NOW_MS) for number in range(500)]
    for number in range(0, 500, 2):
        batch[number] = (bad[number // 2 % len(bad)], NOW_MS)
    found = decoded(at_offsets(batch))
    assert len(found.events) == len(found.rejects) == 250
    assert found.events["request_id"].to_pylist() == [str(number) for number in range(1, 500, 2)]
