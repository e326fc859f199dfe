"""Payloads of all sorts, right, odd and damaged, for tests of decoding."""

from __future__ import annotations

import json

import orjson
import pyarrow as pa
from hypothesis import strategies as st

from pipeline.events import ACCESS_FIELDS, TIME

Record = tuple[bytes | None, int]
EVENT = {"event_time": "2026-03-01T12:00:00.000Z", "account_id": "a", "model": "m"}
NOW_MS = 1_772_366_400_000  # 2026-03-01T12:00:00Z
SPACE = st.sampled_from([b"", b"", b"", b" ", b"\n", b"\t", b"\r\n  ", b"  "])
NAMES = [field.name for field in ACCESS_FIELDS]

TIMES = st.sampled_from(
    [
        "2026-03-01T12:00:00Z", "2026-03-01T12:00:00.1Z", "2026-03-01T12:00:00.123456Z", "2026-03-01T12:00:00.1234567Z",
        "2026-03-01T12:00:00.123456789Z", "2026-03-01t12:00:00z", "2026-03-01 12:00:00Z", "2026-03-01T12:00:00+00:00",
        "2026-03-01T13:30:00+01:30", "2026-03-01T12:00:00-00:00", "2026-03-01T12:00:00+0000", "2026-03-01T12:00:00+00",
        "2026-03-01T12:00:00", "2026-03-01T12:00Z", "2026-03-01T12Z", "2026-03-01", "2026-03-01Z", "20260301T120000Z",
        "2026-3-1T12:00:00Z", "2026-02-30T12:00:00Z", "2026-03-01T24:00:00Z", "2026-03-01T23:59:60Z", "2026-03-01T12:60:00Z",
        "2026-03-01T12:00:00+24:00", "2026-03-01T12:00:00+23:60", "2026-03-01T12:00:00+23:59", "2026-03-01T12:00:00.Z",
        "2026-03-01T12:00:00,5Z", "2026-03-01T12:00:00 Z", " 2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z ", "",
        "1970-01-01T00:00:00Z", "2014-12-31T23:59:59.999999Z", "2015-01-01T00:00:00Z", "2199-12-31T23:59:59Z",
        "2200-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00",
        "12026-03-01T12:00:00Z", "-2026-03-01T12:00:00Z", "2026-03-01T13:00:00Z", "2026-03-01T13:00:00.000001Z",
        "2036-03-01T12:00:00Z", "1772366400", "yesterday", "２026-03-01T12:00:00Z", "2026-03-01T12:00:00Z\x00",
    ]
).map(orjson.dumps)  # fmt: skip

NUMBERS = [
    b"0", b"-0", b"-0.0", b"1", b"200", b"200.0", b"2e2", b"2E+2", b"199.5", b"-1", b"-2", b"1e400", b"-1e400",
    b"1e-400", b"9007199254740991", b"9007199254740992", b"9007199254740993", b"9223372036854775807",
    b"9223372036854775808", b"-9223372036854775808", b"-9223372036854775809", b"18446744073709551615",
    b"18446744073709551616", b"1" * 40, b"0.1", b"0.30000000000000004", b"1.7976931348623157e308", b"5e-324", b"01",
    b"+1", b".5", b"1.", b"0x10", b"1e", b"- 1", b"NaN", b"-NaN", b"nan", b"-nan", b"Infinity", b"-Infinity", b"inf",
    b"1_000", b"1\0", b"0.5\0\0", b"-", b"0e", b"1e+", b"--1",
]  # fmt: skip
ANY_NUMBER = st.integers().map(lambda n: str(n).encode()) | st.floats(allow_nan=False, allow_infinity=False).map(lambda x: repr(x).encode())  # fmt: skip

TEXTS = [
    b'""', b'"a"', b'"200"', b'"1.5"', b'"true"', b'"null"', b'"a\\"b"', b'"\\":1"', b'"a\\\\"', b'"x\\\\\\":"',
    b'" : "', b'"{\\"n\\":1}"', b'",}"', b'",]"', b'", }"', b'"\\u0041"', b'"\\u0000"', b'"\\ud83d\\ude00"',
    b'"\\ud800"', b'"\\udc00x"', b'"\xf0\x9f\x98\x80"', b'"\xff"', b'"\xc3"', b'"\xed\xa0\x80"', b'"a\nb"', b'"\x01"',
    b'"\\x"', b'"\\u12"', b'"unclosed', b"'a'", b'"\xe2\x80\xa8"', b'"\x7f"', b'"\xc0\x80"',
]  # fmt: skip
ANY_TEXT = st.text(max_size=20).map(lambda text: json.dumps(text).encode()) | st.text(max_size=20).map(
    lambda text: json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")
)  # fmt: skip

OTHERS = [
    b"null", b"null", b"true", b"false", b"True", b"nul", b"nullx", b"{}", b"[]", b'{"n":1}', b'[1,"status"]', b'[{"n":null}]',
    b"[1,]", b'{"a":1,}', b"undefined", b"", b"/*x*/1", b"[" * 300 + b"]" * 300, b"[" * 1500 + b"]" * 1500,
]  # fmt: skip


def _is_json(value: bytes) -> bool:
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True


SAMPLES = [*TEXTS, *NUMBERS, *OTHERS]
VALID = st.sampled_from([value for value in SAMPLES if _is_json(value)]) | ANY_NUMBER | ANY_TEXT | TIMES
INVALID = st.sampled_from([value for value in SAMPLES if not _is_json(value)])
VALUES = st.integers(0, 9).flatmap(lambda dice: VALID if dice else INVALID)


def right_value(name: str) -> st.SearchStrategy[bytes]:
    field = next(field for field in ACCESS_FIELDS if field.name == name)
    if field.arrow == TIME:
        return st.sampled_from([b'"2026-03-01T12:00:00Z"', b'"2026-03-01T11:59:59.5Z"'])
    if field.arrow == pa.bool_():
        return st.sampled_from([b"true", b"false"])
    if field.arrow == pa.string():
        return st.sampled_from([b'"x"', b'"text with \\"quotes\\": yes"', b'"\xc3\xa9"'])
    return st.sampled_from([b"1", b"0", b"1.0"]) if field.name != "status" else st.sampled_from([b"200", b"599"])


KNOWN = st.sampled_from(NAMES)
STRANGE_KEYS = st.sampled_from(
    [b'"x"', b'""', b'"mod\\u0065l"', b'"Model"', b'"model "', b'"a\\"model"', b'"a\\\\"', b'"foo_tokens"', b'"\xc3\xa9"', b'"p"',
     b'"' + b"k" * 200 + b'"', b'"\\u006d\\u006f\\u0064\\u0065\\u006c"', b'"prompt\\u005fhash"', b'"n\\u0000"']
)  # fmt: skip


@st.composite
def members(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    """Keys and values: the required ones right, most of the time, and then all sorts."""
    found: list[tuple[bytes, bytes]] = [
        (b'"%s"' % name.encode(), draw(right_value(name)))
        for name in EVENT
        if draw(st.integers(0, 29)) != 7  # rarely
    ]
    for _ in range(draw(st.integers(0, 6))):
        name = draw(KNOWN)
        found.append((b'"%s"' % name.encode(), draw(right_value(name))))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        key = draw(STRANGE_KEYS | KNOWN.map(lambda name: b'"%s"' % name.encode()))
        found.append((key, draw(VALUES)))
    return draw(st.permutations(found))


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    space = [draw(SPACE) for _ in range(5)] if draw(st.booleans()) else [b""] * 5
    inside = (b"," + space[0]).join(
        key + space[1] + b":" + space[2] + value + space[3] for key, value in draw(members())
    )
    end = draw(
        st.sampled_from([b"}"] * 60 + [b",}", b", }", b",\n }", b"", b"}}", b"} x", b"}\x00", b"}/**/", b"}]", b"},"])
    )
    start = draw(st.sampled_from([b"{"] * 60 + [b"", b"[{", b"\xef\xbb\xbf{", b" {", b"\x0b{", b"{{", b"/**/{"]))
    return start + inside + end + space[4]


RIGHT = st.sampled_from([orjson.dumps(EVENT), orjson.dumps({**EVENT, "status": 200, "prompt": "hi", "top_p": None})])
SHORT = (
    st.none()
    | st.binary(max_size=14)
    | st.sampled_from([b"", b" ", b"{}", b"[]", b"null", b"1", b'"x"', b"{", b"\x00\x00\x00"])
)
PAYLOADS = objects() | objects() | objects() | RIGHT | SHORT | st.binary(max_size=60)
TIMESTAMPS = st.sampled_from(
    [-1, NOW_MS, NOW_MS, NOW_MS, NOW_MS - 3_600_000, NOW_MS - 3_600_001, 0, NOW_MS * 1000, 2**62, 2**63 - 1]
)
BATCHES = st.lists(st.tuples(PAYLOADS, TIMESTAMPS), max_size=30)
