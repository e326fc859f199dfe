"""Traffic at a steady rate: events of 200,000 accounts, or simulated ones with harvesters among them.

Runs as a process of its own: `python -m tests.bench.live_traffic BOOTSTRAP TOPIC RATE COUNT [FILE]`.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from confluent_kafka import Producer

from tests.bench.events import account_of, event_lines

ACCOUNTS = 200_000
_TEMPLATES = 20_000
_TICK_S = 0.02
_DRAW = 1 << 16


def many_accounts(rate: float) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of events without end, each of some account of `ACCOUNTS`; event time goes with the rate."""
    templates = [_cut(event) for event in event_lines(_TEMPLATES)]
    draw = np.random.default_rng(7)
    begin, number = datetime.now(UTC), 0
    while True:
        for account in draw.integers(0, ACCOUNTS, _DRAW).tolist():
            key = b"acct_%010x" % account
            moment = (begin + timedelta(seconds=number / rate)).isoformat(timespec="milliseconds")[:-6].encode()
            head, middle, rest = templates[number % _TEMPLATES]
            yield key, b"".join((head, moment, middle, key, rest))
            number += 1


def _cut(event: bytes) -> tuple[bytes, bytes, bytes]:
    """An event without its time and account."""
    time_at = event.index(b'"event_time":"') + 14
    account = account_of(event)
    at = event.index(account)
    return event[:time_at], event[time_at + 23 : at], event[at + len(account) :]


def of_file(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of the events in a file of key, tab, value."""
    with path.open("rb", buffering=1 << 20) as lines:
        for line in lines:
            key, _, value = line[:-1].partition(b"\t")
            yield key, value


def produce(bootstrap: str, topic: str, rate: float, count: int, events: Iterator[tuple[bytes, bytes]]) -> None:
    """Send events, so many a second."""
    settings = {"bootstrap.servers": bootstrap, "compression.type": "lz4", "linger.ms": 5, "acks": "all"}
    producer = Producer({**settings, "queue.buffering.max.messages": 1_000_000})
    sent, began_s = 0, time.monotonic()
    while sent < count:
        due = min(count, int((time.monotonic() - began_s) * rate) + 1)
        for key, value in itertools.islice(events, due - sent):
            producer.produce(topic, value, key)
        sent = due
        producer.poll(0)
        time.sleep(_TICK_S)
    producer.flush(60)
    print(f"{count / (time.monotonic() - began_s):.0f}", flush=True)


if __name__ == "__main__":
    server, name, per_s, total = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
    source = of_file(Path(sys.argv[5])) if len(sys.argv) > 5 else many_accounts(per_s)
    produce(server, name, per_s, total, source)
