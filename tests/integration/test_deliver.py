"""`stillwatch deliver` as processes: killed at each step, two at once, every sink, and Kafka in earnest."""

from __future__ import annotations

import collections
import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import ocsf_json_schema
import pytest
from kafka import KafkaConsumer, TopicPartition

from pipeline.delivery.ports import STEPS
from pipeline.io.desk.audit_log import AuditFilter
from tests.delivering import Outgoing
from tests.misbehaving import Misbehaving, answering, cut, silent
from tests.servers import KafkaServer
from tests.waiting import wait_until

SECRET = "a-secret-of-more-than-24-bytes"
Out = Callable[..., Outgoing]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Out]:
    monkeypatch.setenv("SOC_SECRET", SECRET)
    with contextlib.ExitStack() as ends:

        def make(sinks: dict[str, dict[str, Any]], **settings: Any) -> Outgoing:
            made = Outgoing(tmp_path, sinks, **settings)
            ends.callback(made.close)
            return made

        yield make


def webhook(server: Misbehaving, **more: Any) -> dict[str, Any]:
    return {"type": "webhook", "url": server.url, "secret_env": "SOC_SECRET", **more}


def ids_of(path: Path) -> list[str]:
    return [json.loads(line)["alert_id"] for line in path.read_bytes().splitlines()]


def received(server: Misbehaving) -> list[str]:
    return [request.headers["webhook-id"] for request in server.requests]


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_any_step_everything_arrives_under_the_same_id(out: Out, tmp_path: Path, step: str) -> None:
    """What was sent and not marked comes again; nothing else does, and nothing is lost."""
    with Misbehaving([answering(200)]) as server:
        outgoing = out(
            {"soc": webhook(server), "file": {"type": "file", "path": str(tmp_path / "alerts.ndjson")}}, lease_s=4.0
        )
        ids = outgoing.raise_alerts(range(30))
        for count in (1, 2):
            assert outgoing.start(step, count).process.wait(60) == -signal.SIGKILL
        worker = outgoing.start()
        worker.wait_for("started")
        wait_until(outgoing.is_done, "everything delivered")
        assert worker.stop() == 0
    for got in (received(server), ids_of(tmp_path / "alerts.ndjson")):
        assert set(got) == set(ids)
        assert list(dict.fromkeys(got)) == ids, "first seen in order"
    with outgoing.catalog() as catalog:
        assert catalog.desk.audit.broken_at() is None
        sent = catalog.desk.audit.records(AuditFilter(action="delivery.sent"))
    assert sum(record.details["alerts"] for record in sent if record.subject == "soc") == 30


@pytest.mark.parametrize("kind", ("sqlite", "postgresql"))
def test_of_two_at_once_each_alert_is_sent_by_one(
    out: Out, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if kind == "postgresql" else ""
    with Misbehaving([answering(200)]) as server:
        path = tmp_path / "alerts.ndjson"
        outgoing = out({"soc": webhook(server), "file": {"type": "file", "path": str(path)}}, url=url)
        workers = [outgoing.start(), outgoing.start()]
        ids: list[str] = []
        for start in range(0, 200, 20):
            ids += outgoing.raise_alerts(range(start, start + 20))
        wait_until(outgoing.is_done, "everything delivered")
        assert [worker.stop() for worker in workers] == [0, 0]
    assert sorted(received(server)) == sorted(ids)
    assert sorted(ids_of(path)) == sorted(ids)


def test_when_one_is_killed_the_other_takes_over(out: Out, tmp_path: Path) -> None:
    path = tmp_path / "alerts.ndjson"
    outgoing = out({"file": {"type": "file", "path": str(path)}}, lease_s=4.0)
    first = outgoing.start()
    first.wait_for("holds a sink")
    second = outgoing.start()
    second.wait_for("started")
    first.kill()
    ids = outgoing.raise_alerts(range(3))
    wait_until(outgoing.is_done, "everything delivered")
    assert ids_of(path) == ids
    assert second.stop() == 0


def test_who_was_suspended_beyond_its_lease_marks_nothing(out: Out, tmp_path: Path) -> None:
    path = tmp_path / "alerts.ndjson"
    outgoing = out({"file": {"type": "file", "path": str(path)}}, lease_s=4.0)
    first = outgoing.start()
    first.wait_for("holds a sink")
    first.process.send_signal(signal.SIGSTOP)
    second = outgoing.start()
    second.wait_for("holds a sink")
    ids = outgoing.raise_alerts(range(3))
    wait_until(outgoing.is_done, "everything delivered")
    first.process.send_signal(signal.SIGCONT)
    first.wait_for("lost a sink to another deliverer")
    assert [first.stop(), second.stop()] == [0, 0]
    assert ids_of(path) == ids
    assert outgoing.states()["file"].sent == 3


def test_a_slow_and_a_dead_sink_keep_no_other_waiting(out: Out, tmp_path: Path) -> None:
    path = tmp_path / "alerts.ndjson"
    with Misbehaving([silent]) as slow, Misbehaving([cut]) as dead:
        outgoing = out(
            {"slow": webhook(slow), "dead": webhook(dead), "file": {"type": "file", "path": str(path)}}, lease_s=4.0
        )
        ids = outgoing.raise_alerts(range(1_000))
        worker = outgoing.start()
        wait_until(lambda: outgoing.states().get("file") is not None, "the sinks")
        wait_until(lambda: outgoing.states()["file"].sent == 1_000, "the file")
        assert worker.stop() == 0
    assert ids_of(path) == ids
    states = outgoing.states()
    assert (states["slow"].sent, states["dead"].sent) == (0, 0)
    assert states["slow"].waiting == 1_000


def test_once_tries_all_and_says_by_its_exit_code_whether_any_waits(out: Out, tmp_path: Path) -> None:
    path = tmp_path / "alerts.ndjson"
    with Misbehaving([answering(503), answering(200)]) as server:
        outgoing = out({"soc": webhook(server), "file": {"type": "file", "path": str(path)}})
        ids = outgoing.raise_alerts(range(3))
        first = outgoing.command("--once")
        assert first.returncode == 4, first.stderr
        assert "some alerts still wait" in first.stderr
        assert ids_of(path) == ids
        assert outgoing.command("--once").returncode == 0
    assert received(server) == [ids[0], *ids]
    assert SECRET not in first.stderr


def test_findings_arrive_on_a_topic_keyed_by_their_ids(out: Out, kafka: KafkaServer, topic: Callable[..., str]) -> None:
    name = topic(3)
    outgoing = out({"siem": {"type": "kafka", "topic": name}}, bootstrap=kafka.bootstrap)
    ids = outgoing.raise_alerts(range(1_200))
    done = outgoing.command("--once")
    assert done.returncode == 0, done.stderr
    records = read_topic(kafka.bootstrap, name, 3)
    assert collections.Counter(key for key, _ in records) == collections.Counter(ids)
    schema = ocsf_json_schema.get_ocsf_schema("1.8.0")
    finding = jsonschema.Draft202012Validator(
        ocsf_json_schema.OcsfJsonSchemaEmbedded(schema).get_class_schema("detection_finding")
    )
    for key, value in records[::100]:
        assert finding.is_valid(value)
        assert value["finding_info"]["uid"] == key


def test_a_topic_that_is_not_there_is_waited_for(out: Out, kafka: KafkaServer) -> None:
    sink = {"type": "kafka", "topic": "stillwatch-test-no-such-topic", "timeout_s": 3.0}
    outgoing = out({"siem": sink}, bootstrap=kafka.bootstrap)
    outgoing.raise_alerts(range(2))
    done = outgoing.command("--once")
    assert done.returncode == 4
    state = outgoing.states()["siem"]
    assert (state.waiting, state.failures) == (2, 1)
    assert state.error.startswith("Kafka: ")


def test_brokers_that_are_not_there_are_waited_for(out: Out) -> None:
    with Misbehaving([silent]) as server:
        pass  # nobody listens there any more
    sink = {"type": "kafka", "topic": "alerts", "bootstrap": f"127.0.0.1:{server.port}", "timeout_s": 2.0}
    outgoing = out({"siem": sink})
    outgoing.raise_alerts(range(2))
    assert outgoing.command("--once").returncode == 4
    assert outgoing.states()["siem"].waiting == 2


def read_topic(bootstrap: str, topic: str, partitions: int) -> list[tuple[str, Any]]:
    with contextlib.closing(KafkaConsumer(bootstrap_servers=bootstrap)) as consumer:
        where = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(where)
        consumer.seek_to_beginning()
        left = sum(consumer.end_offsets(where).values())
        found: list[tuple[str, Any]] = []
        while left:
            for records in consumer.poll(timeout_ms=1_000).values():
                left -= len(records)
                found += [(record.key.decode(), json.loads(record.value)) for record in records]
    return found
