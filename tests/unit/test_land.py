"""Landing: rows go to their table and hour, sorted, whatever batches they came in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import orjson
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batch import Decoded, Partition, Records
from pipeline.decode import Decoder
from pipeline.events import ACCESS_SCHEMA, CONTENT_SCHEMA, REJECT_SCHEMA
from pipeline.land import Section, sections

DECODER = Decoder()
KAFKA_MS = 1_790_000_000_000

payloads = st.lists(
    st.one_of(
        st.builds(
            lambda account, minute, prompt, extra: orjson.dumps(
                {
                    "event_time": f"2026-09-2{minute // 1440}T{minute // 60 % 24:02d}:{minute % 60:02d}:00.000Z",
                    "account_id": account,
                    "model": "m",
                    **({"prompt": prompt} if prompt is not None else {}),
                    **({"odd": extra} if extra else {}),
                }
            ),
            st.sampled_from(["a", "b", "é", "a" * 40, "B"]),
            st.integers(0, 300),
            st.none() | st.text(max_size=5),
            st.booleans(),
        ),
        st.sampled_from([b"", b"{", b"[]"]),
    ),
    min_size=1,
    max_size=60,
)


def decoded(values: Sequence[bytes], first: int) -> Decoded:
    """The rows of values from an offset on; every seventh record has no Kafka timestamp."""
    offsets = np.arange(first, first + len(values))
    stamps = np.where(offsets % 7 == 0, -1, KAFKA_MS + offsets * 600_000)
    records = Records(Partition("t", 1), pa.array(values, pa.binary_view()), offsets, stamps, first + len(values))
    return DECODER.decode(records)


def rows(found: Sequence[Section]) -> Counter[str]:
    """Every row with its table and hour."""
    return Counter(
        repr((section.table, section.dt, section.hour, row)) for section in found for row in section.rows.to_pylist()
    )


@settings(max_examples=80, deadline=None)
@given(payloads, st.data())
def test_batches_do_not_matter(values: list[bytes], data: st.DataObject) -> None:
    """Cut anywhere, the same sections come out, row for row in the same order."""
    cut = data.draw(st.integers(0, len(values)))
    whole = list(sections([decoded(values, 0)]))
    parts = [decoded(part, first) for part, first in ((values[:cut], 0), (values[cut:], cut)) if part]
    in_parts = list(sections(parts))
    assert [(s.table, s.dt, s.hour, s.time_min_us, s.time_max_us) for s in whole] == [
        (s.table, s.dt, s.hour, s.time_min_us, s.time_max_us) for s in in_parts
    ]
    assert all(one.rows.equals(other.rows) for one, other in zip(whole, in_parts, strict=True))


@settings(max_examples=80, deadline=None)
@given(payloads)
def test_every_row_lands_once_in_its_hour_and_sorted(values: list[bytes]) -> None:
    """events + rejects = records; text only in `content`; sorted by account, time and offset."""
    batch = decoded(values, 0)
    found = list(sections([batch]))
    count = Counter(dict.fromkeys(("access", "content", "rejects"), 0))
    schemas = {"access": ACCESS_SCHEMA, "content": CONTENT_SCHEMA, "rejects": REJECT_SCHEMA}
    for section in found:
        assert section.rows.schema.equals(schemas[section.table])
        count[section.table] += len(section.rows)
        listed = section.rows.to_pylist()
        if section.table == "rejects":
            assert [row["offset"] for row in listed] == sorted(row["offset"] for row in listed)
            continue
        assert {(row["event_time"].date().isoformat(), row["event_time"].hour) for row in listed} == {
            (section.dt, section.hour)
        }
        keys = [(row["account_id"].encode(), row["event_time"], row["offset"]) for row in listed]
        assert keys == sorted(keys)
    texts = sum(
        row["prompt"] is not None or row["extra"] is not None
        for row in batch.events.select(["prompt", "extra"]).to_pylist()
    )
    assert count == {"access": len(batch.events), "rejects": len(batch.rejects), "content": texts}
    assert len(batch.events) + len(batch.rejects) == len(values)
    assert len(rows(found)) == sum(count.values())
