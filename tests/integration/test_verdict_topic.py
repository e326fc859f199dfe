"""Verdicts from a topic: each once, whatever happens, on the real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewPartitions
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.batch import Partition
from pipeline.decisions import Verdict
from pipeline.errors import FencedError, OffsetGapError, SchemaError
from pipeline.io.desk.audit_log import AuditFilter
from pipeline.io.desk.topic_book import Read
from tests.conftest import TopicFactory
from tests.lake_maker import LakeMaker
from tests.servers import ADMIN_TIMEOUT_MS, KafkaServer, create_topic
from tests.stages import stand_ins
from tests.unit.io.test_judging import event
from tests.waiting import BOUND_S, wait_until

ACCOUNTS = [f"acct_{number}" for number in range(20)]


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[LakeMaker]:
    maker = LakeMaker(tmp_path / "lake", watch=stand_ins())
    maker.append([event(account, minute) for account in ACCOUNTS for minute in range(3)])
    yield maker
    maker.close()


def said(account: str, decision: str = "harvesting", **more: Any) -> bytes:
    return json.dumps({"account_id": account, "decision": decision, "why": "w", "by": "case-system", **more}).encode()


def send(kafka: KafkaServer, topic: str, values: Sequence[bytes | None], partition: int = 0) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    for value in values:
        producer.send(topic, value, key=b"k", partition=partition)
    producer.flush()
    producer.close()


def arguments(maker: LakeMaker, kafka: KafkaServer, topic: str) -> list[str]:
    where = ["--lake", str(maker.root), "--bootstrap", kafka.bootstrap]
    return ["verdict", "listen", "--topic", topic, *where, "--log-level", "warning"]


def listen(maker: LakeMaker, kafka: KafkaServer, topic: str, *flags: str) -> str:
    """Listen until all is read; what was said."""
    result = CliRunner().invoke(app, [*arguments(maker, kafka, topic), "--once", *flags])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_each_verdict_is_given_once_and_what_is_none_is_told(
    maker: LakeMaker, kafka: KafkaServer, topic: TopicFactory
) -> None:
    name = topic(2)
    bad = [b"{", b"[1]", None, said("nobody"), said("acct_1", "guilty"), said("acct_1", at="noon"), b'{"account_id":1}']
    send(kafka, name, [said("acct_0"), *bad, said("acct_1", "benign", at="2026-03-01T12:02:00Z")])
    send(kafka, name, [said("acct_2"), said("acct_2", "withdrawn")], partition=1)
    shown = listen(maker, kafka, name)
    assert shown.startswith("4 verdicts given, 7 records refused; `stillwatch audit --action verdict.refused`")
    found = maker.catalog.desk.verdicts.find()
    assert sorted((one.account_id, one.decision) for one in found) == [
        ("acct_0", "harvesting"), ("acct_1", "benign"), ("acct_2", "harvesting"), ("acct_2", "withdrawn"),
    ]  # fmt: skip
    assert {(one.source, one.given_by) for one in found} == {(f"kafka:{name}", "case-system")}
    assert all(one.row is not None for one in found if one.decision != "withdrawn")
    refused = [one for one in maker.catalog.desk.audit.records() if one.action == "verdict.refused"]
    assert sorted((one.details["offset"], one.details["kind"]) for one in refused) == [
        (1, "unreadable"), (2, "unreadable"), (3, "unreadable"), (4, "never seen"), (5, "unsound"), (6, "unreadable"),
        (7, "unreadable"),
    ]  # fmt: skip
    assert {one.subject for one in refused} == {"", "nobody", "acct_1"}
    assert "nobody" not in json.dumps([dict(one.details) for one in refused])
    assert listen(maker, kafka, name) == "0 verdicts given, 0 records refused\n"
    send(kafka, name, [said("acct_3"), said("acct_4", verdict_id="c" * 32)])
    assert listen(maker, kafka, name).startswith("2 verdicts given, 0")
    send(kafka, name, [said("acct_4", verdict_id="c" * 32)])
    assert listen(maker, kafka, name).startswith("0 verdicts given, 0")
    assert len(maker.catalog.desk.verdicts.find()) == 6


def test_what_is_never_seen_is_taken_where_that_is_asked_for(
    maker: LakeMaker, kafka: KafkaServer, topic: TopicFactory
) -> None:
    name = topic()
    send(kafka, name, [said("nobody")])
    assert "1 of them without stored features" in listen(maker, kafka, name, "--anyway")
    assert maker.catalog.desk.verdicts.standing("nobody") is not None


def test_verdicts_wait_for_a_broken_file_or_are_given_without_what_it_may_hold(
    maker: LakeMaker, kafka: KafkaServer, topic: TopicFactory
) -> None:
    name = topic()
    send(kafka, name, [said("acct_0")])
    (file,) = maker.catalog.live_files("account_windows")
    (maker.root / file.path).write_bytes(b"x")
    with pytest.raises(SchemaError, match="maintain verify"):
        listen(maker, kafka, name)
    assert maker.catalog.desk.topics.read(name) == {}
    assert "1 of them without stored features" in listen(maker, kafka, name, "--anyway")
    (record,) = maker.catalog.desk.audit.records(AuditFilter(action="verdict.given"))
    assert record.details["unread"] == file.path


def test_killed_at_any_moment_none_is_lost_and_none_doubled(
    maker: LakeMaker, kafka: KafkaServer, topic: TopicFactory
) -> None:
    name = topic()
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    command = [sys.executable, "-m", "jobs.cli", *arguments(maker, kafka, name)]
    sent = 0
    for kill in range(4):
        worker = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            goal = min(sent + 1, len(maker.catalog.desk.verdicts.find()) + 1)
            until_s = time.monotonic() + BOUND_S
            while len(maker.catalog.desk.verdicts.find()) < max(goal, kill + 1) and time.monotonic() < until_s:
                producer.send(name, said(ACCOUNTS[sent % len(ACCOUNTS)], why=f"number {sent}"), partition=0).get(10)
                sent += 1
            assert len(maker.catalog.desk.verdicts.find()) >= max(goal, kill + 1)
        finally:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
    producer.close()
    listen(maker, kafka, name)
    whys = sorted(one.why for one in maker.catalog.desk.verdicts.find())
    assert whys == sorted(f"number {number}" for number in range(sent))
    assert maker.catalog.desk.audit.broken_at() is None


def test_it_stops_when_told_and_says_what_came(maker: LakeMaker, kafka: KafkaServer, topic: TopicFactory) -> None:
    name = topic()
    send(kafka, name, [said("acct_1")])
    command = [sys.executable, "-m", "jobs.cli", *arguments(maker, kafka, name)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "STILLWATCH_BY": "x"})
    wait_until(lambda: maker.catalog.desk.verdicts.find() or worker.poll() is not None, "no verdict was given")
    assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    shown, _ = worker.communicate(timeout=BOUND_S)
    assert (worker.returncode, shown) == (0, "1 verdict given, 0 records refused\n")


def test_two_listeners_do_no_harm(maker: LakeMaker) -> None:
    """Only one of them moves the offset."""
    book, where = maker.catalog.desk.topics, Partition("verdicts", 0)
    verdict = Verdict("a" * 32, "acct_1", "benign", "w", "x", 1)
    assert len(book.give(where, None, Read(5, "t"), [verdict])) == 1
    for before in (None, Read(4, "t"), Read(5, "u")):
        with pytest.raises(FencedError, match="verdicts-0"):
            book.give(where, before, Read(9, "t"), [Verdict("b" * 32, "acct_1", "benign", "w", "x", 1)])
    assert book.read("verdicts") == {0: Read(5, "t")}
    assert [one.verdict_id for one in maker.catalog.desk.verdicts.find()] == ["a" * 32]


def test_verdicts_that_kafka_lost_are_not_skipped_in_silence(
    maker: LakeMaker, full_kafka: KafkaServer, kafka_admin: KafkaAdminClient, topic: TopicFactory
) -> None:
    name = topic()
    send(full_kafka, name, [said("acct_1")])
    listen(maker, full_kafka, name)
    send(full_kafka, name, [said("acct_2"), said("acct_3"), said("acct_4")])
    kafka_admin.delete_records({TopicPartition(name, 0): 3}, timeout_ms=ADMIN_TIMEOUT_MS)
    with pytest.raises(OffsetGapError, match=r"no longer holds offsets 1 to 2.*--skip-lost"):
        listen(maker, full_kafka, name)
    assert listen(maker, full_kafka, name, "--skip-lost").startswith("1 verdict given")
    (skipped,) = [one for one in maker.catalog.desk.audit.records() if one.action == "verdicts.skipped"]
    assert "offsets 1 to 2" in skipped.details["why"]


def test_a_topic_that_was_made_anew_is_told(
    maker: LakeMaker, full_kafka: KafkaServer, kafka_admin: KafkaAdminClient, topic: TopicFactory
) -> None:
    name = topic()
    send(full_kafka, name, [said("acct_1")])
    listen(maker, full_kafka, name)
    kafka_admin.delete_topics([name], timeout_ms=ADMIN_TIMEOUT_MS)
    wait_until(lambda: name not in kafka_admin.list_topics(), "the topic was not deleted")
    create_topic(kafka_admin, name, 1, None)
    send(full_kafka, name, [said("acct_2"), said("acct_3")])
    with pytest.raises(OffsetGapError, match="made anew"):
        listen(maker, full_kafka, name)
    assert listen(maker, full_kafka, name, "--skip-lost").startswith("2 verdicts given")


def test_partitions_that_are_added_are_read(
    maker: LakeMaker, full_kafka: KafkaServer, kafka_admin: KafkaAdminClient, topic: TopicFactory
) -> None:
    name = topic()
    send(full_kafka, name, [said("acct_1")])
    listen(maker, full_kafka, name)
    kafka_admin.create_partitions({name: NewPartitions(2)}, timeout_ms=ADMIN_TIMEOUT_MS)
    send(full_kafka, name, [said("acct_2")], partition=1)
    assert listen(maker, full_kafka, name).startswith("1 verdict given")
