"""Each sink against a server that misbehaves, a file system that fails, and secrets that are not there."""

from __future__ import annotations

import base64
import errno
import hashlib
import hmac
import json
import os
import threading
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Settings
from pipeline.delivery.parcels import Later, Outcome, Refused, Sent
from pipeline.delivery.sinks import FileSink, KafkaSink, PagerdutySink, SlackSink, WebhookSink
from pipeline.errors import ConfigError
from pipeline.io.clock import SystemClock
from pipeline.io.sinks import file, open_sink
from pipeline.io.sinks.secrets import secret_of
from tests.misbehaving import Behaviour, Misbehaving, answering, cut, dripping, saying, silent
from tests.parcels import digest, parcel

KINDS = ("webhook", "slack", "pagerduty")
GOOD = {"webhook": b"thanks", "slack": b"ok", "pagerduty": b'{"status":"success","message":"Event processed"}'}
SECRET = "a-secret-of-more-than-24-bytes"
TIMEOUT_S = 0.5
OK_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def send(
    kind: str, url: str, monkeypatch: pytest.MonkeyPatch, one: Any = None, timeout_s: float = TIMEOUT_S
) -> Outcome:
    """Send one parcel."""
    table: WebhookSink | SlackSink | PagerdutySink
    monkeypatch.setenv("SINK_SECRET", url if kind == "slack" else SECRET)
    if kind == "webhook":
        table = WebhookSink(type="webhook", url=url, secret_env="SINK_SECRET", timeout_s=timeout_s)
    elif kind == "slack":
        table = SlackSink(type="slack", secret_env="SINK_SECRET", timeout_s=timeout_s)
    else:
        table = PagerdutySink(type="pagerduty", url=url, secret_env="SINK_SECRET", timeout_s=timeout_s)
    sink = open_sink("soc", table, Settings(), SystemClock())
    try:
        (outcome,) = sink.send([one or parcel()])
    finally:
        sink.close()
    return outcome


def test_what_is_sent_arrives_with_its_id(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for one in (parcel(), digest()):
        with Misbehaving([answering(202 if kind == "pagerduty" else 200, GOOD[kind])]) as server:
            assert send(kind, server.url, monkeypatch, one, timeout_s=10) == Sent()
        (request,) = server.requests
        assert request.line == "POST /hook HTTP/1.1"
        assert request.headers["content-type"] == "application/json"
        assert "cookie" not in request.headers
        if kind == "webhook":
            assert request.headers["webhook-id"] == one.key
        if kind == "pagerduty":
            assert (request.json()["dedup_key"], request.json()["routing_key"]) == (one.key, SECRET)
        if kind == "slack":
            assert request.json()["blocks"][0]["type"] == "header"


def test_a_webhook_is_signed_over_what_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    with Misbehaving([answering(204)]) as server:
        assert send("webhook", server.url, monkeypatch, timeout_s=10) == Sent()
    (request,) = server.requests
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    wanted = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{wanted}"


def test_a_proxy_of_the_environment_is_used_and_no_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with Misbehaving([answering(204)]) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        assert send("webhook", "http://127.0.0.1:1/hook", monkeypatch, timeout_s=10) == Sent()
        (request,) = proxy.requests
        assert request.line == "POST http://127.0.0.1:1/hook HTTP/1.1"
        assert "authorization" not in request.headers
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert isinstance(send("webhook", "http://127.0.0.1:1/hook", monkeypatch, timeout_s=10), Later)


LATER: dict[str, tuple[Behaviour, str, bool]] = {
    "silent": (silent, "no answer within", True),
    "head without end": (dripping(b"HTTP/1.1 200 OK\r\nX: "), "no answer within|no HTTP", True),
    "500": (answering(500, b"<html>" * 10_000), "it answered 500", False),
    "503": (answering(503), "it answered 503", True),
    "408": (answering(408), "it answered 408", True),
    "reset": (cut, "connection broke|closed the connection", False),
    "nothing": (saying(b""), "closed the connection", False),
    "half a head": (saying(b"HTTP/1.1 200 O"), "closed the connection|no HTTP|connection broke", False),
    "not HTTP": (saying(b"\x16\x03\x01\x02\x00" * 100), "no HTTP", False),
    "endless garbage": (dripping(b"\xff" * 100_000, b"\xfe" * 1_000), "no HTTP|no answer|broke", False),
    "huge head": (saying(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"), "no HTTP", False),
}


@pytest.mark.parametrize("name", LATER)
def test_a_failure_is_tried_later(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    behaviour, said, unreachable = LATER[name]
    with Misbehaving([behaviour]) as server:
        outcome = send(kind, server.url, monkeypatch)
    assert isinstance(outcome, Later)
    assert any(part in outcome.reason for part in said.split("|")), outcome
    if "|" not in said:
        assert outcome.unreachable is unreachable
    assert SECRET not in outcome.reason
    assert "/hook" not in outcome.reason


def test_who_is_not_there_is_unreachable(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Misbehaving([silent]) as server:
        pass  # the port is closed by now
    outcome = send(kind, server.url, monkeypatch, timeout_s=10)
    assert outcome == Later("no connection: Connection refused", unreachable=True)


@pytest.mark.parametrize("status", (429, 503))
def test_a_busy_sink_says_how_long_it_wants_to_be_left_alone(
    kind: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Misbehaving([answering(status, headers={"Retry-After": "17"})]) as server:
        assert send(kind, server.url, monkeypatch, timeout_s=10) == Later(f"it answered {status}", True, 17.0)


@pytest.mark.parametrize(
    ("header", "least", "most"),
    (
        (formatdate(4_102_444_800, usegmt=True), 1e8, 1e10),
        (formatdate(0, usegmt=True), 0, 0),
        ("soon", None, None),
        ("-5", None, None),
        ("9" * 500, 1e9, 1e10),
    ),
)
def test_a_moment_to_come_back_is_understood_and_nonsense_is_not(
    header: str, least: float | None, most: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Misbehaving([answering(429, headers={"Retry-After": header})]) as server:
        outcome = send("webhook", server.url, monkeypatch, timeout_s=10)
    assert isinstance(outcome, Later)
    if least is None or most is None:
        assert outcome.after_s is None
    else:
        assert outcome.after_s is not None
        assert least <= outcome.after_s <= most


@pytest.mark.parametrize("status", (400, 401, 403, 404, 410, 413, 422))
def test_what_a_sink_will_never_take_is_refused(kind: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with Misbehaving([answering(status, b"echo: acct_1")]) as server:
        assert send(kind, server.url, monkeypatch, timeout_s=10) == Refused(f"it answered {status}")


def test_slack_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with Misbehaving([answering(404, b"no_service")]) as server:
        assert send("slack", server.url, monkeypatch, timeout_s=10) == Refused("it answered 404, no_service")


@pytest.mark.parametrize("status", (301, 302, 303, 307, 308))
def test_no_redirect_is_followed(kind: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with Misbehaving([answering(200, GOOD[kind])]) as other:
        elsewhere = {"Location": f"http://127.0.0.1:{other.port}/stolen"}
        with Misbehaving([answering(status, headers=elsewhere)]) as server:
            outcome = send(kind, server.url, monkeypatch, timeout_s=10)
    assert isinstance(outcome, Refused)
    assert "redirect, which is not followed" in outcome.reason
    assert other.requests == []


@pytest.mark.parametrize("body", (b"\xff\xfe garbage", b"<html>log in</html>", b"", b"[" * 100_000, b'{"status":"x"}'))
@pytest.mark.parametrize("kind", ("slack", "pagerduty"), indirect=True)
def test_a_success_that_is_not_the_sinks_own_does_not_count(
    kind: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Misbehaving([answering(200, body)]) as server:
        outcome = send(kind, server.url, monkeypatch, timeout_s=10)
    assert isinstance(outcome, Later)
    assert not outcome.unreachable


def test_a_body_that_is_no_gzip_though_it_says_so_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Misbehaving([answering(200, b"garbage", {"Content-Encoding": "gzip"})]) as server:
        assert send("webhook", server.url, monkeypatch, timeout_s=10) == Sent()


@pytest.mark.parametrize(
    "behaviour",
    (
        dripping(OK_HEAD, b"1\r\nx\r\n"),
        dripping(OK_HEAD, b"8000\r\n" + b"x" * 0x8000 + b"\r\n", every_s=0),
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", b"x" * 10_000, every_s=0),
        dripping(OK_HEAD, b"zzz garbage\r\n"),
    ),
)
def test_an_answer_without_end_is_not_read_to_its_end(
    kind: str, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook has taken the alert by then; Slack and PagerDuty have not said the word."""
    with Misbehaving([behaviour]) as server:
        outcome = send(kind, server.url, monkeypatch)
    assert isinstance(outcome, Sent if kind == "webhook" else Later)


# ---- secrets


def test_a_secret_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    monkeypatch.setenv("SINK_SECRET", SECRET)
    assert secret_of("soc", SlackSink(type="slack", secret_file=str(tmp_path / "secret"))) == SECRET
    assert secret_of("soc", SlackSink(type="slack", secret_env="SINK_SECRET")) == SECRET


@pytest.mark.parametrize("content", ("", "  \n", "two words", "two\nlines", "x" * 5_000, "\x1b[31m" + SECRET))
def test_what_is_no_secret_is_not_shown(tmp_path: Path, content: str) -> None:
    (tmp_path / "secret").write_text(content)
    with pytest.raises(ConfigError, match=r"sinks\.soc: .*secret") as error:
        secret_of("soc", SlackSink(type="slack", secret_file=str(tmp_path / "secret")))
    assert SECRET not in str(error.value)


def test_a_secret_that_is_not_there_is_named_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="environment variable NOBODY_SET_THIS, which is empty or not set"):
        secret_of("soc", SlackSink(type="slack", secret_env="NOBODY_SET_THIS"))
    with pytest.raises(ConfigError, match="No such file"):
        secret_of("soc", SlackSink(type="slack", secret_file=str(tmp_path / "none")))


def test_a_slack_url_that_cannot_be_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SINK_SECRET", "http://hooks.example/T0/B0/hidden")
    with pytest.raises(ConfigError, match="URL of an incoming webhook") as error:
        open_sink("soc", SlackSink(type="slack", secret_env="SINK_SECRET"), Settings(), SystemClock())
    assert "hidden" not in str(error.value)


# ---- the file


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def file_sink(path: Path, **more: Any) -> Callable[[list[Any]], Any]:
    return file.File(FileSink(type="file", path=str(path), **more), SystemClock()).send


def test_a_file_gets_a_line_for_each_and_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "alerts.ndjson"
    send_all = file_sink(path)
    assert send_all([parcel(1), parcel(2)]) == [Sent(), Sent()]
    assert send_all([digest()]) == [Sent()]
    assert [line.get("alert_id") or line["digest_id"] for line in lines(path)] == [f"{1:032x}", f"{2:032x}", "d" * 32]
    assert path.stat().st_mode & 0o777 == 0o600
    file_sink(tmp_path / "ocsf.ndjson", format="ocsf")([parcel(1)])
    assert lines(tmp_path / "ocsf.ndjson")[0]["class_uid"] == 2004


def test_half_a_line_that_a_crash_left_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "alerts.ndjson"
    file_sink(path)([parcel(1), parcel(2)])
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2 + 40, len(whole) // 2 + 3):
        path.write_bytes(whole[:length])
        file_sink(path)([parcel(2)])
        assert [line["alert_id"] for line in lines(path)] == [f"{1:032x}", f"{2:032x}"]


def test_somebody_elses_last_line_stays(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_bytes(b"mine, without a line's end")
    file_sink(path)([parcel(1)])
    assert path.read_bytes().startswith(b'mine, without a line\'s end\n{"type":"alert"')


def test_a_file_may_be_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "alerts.ndjson"
    send_all = file_sink(path)
    send_all([parcel(1)])
    path.rename(tmp_path / "yesterday")
    send_all([parcel(2)])
    assert [line["alert_id"] for line in lines(path)] == [f"{2:032x}"]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "alerts.ndjson"
    send_all = file_sink(path)
    send_all([parcel(1)])
    before = path.read_bytes()

    def full(descriptor: int, content: memoryview) -> int:
        if os.fstat(descriptor).st_size > len(before):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, content[:7])

    real = os.write
    monkeypatch.setattr(file.os, "write", full)
    outcome = send_all([parcel(2), parcel(3)])
    assert outcome == [Later("the file cannot be written: No space left on device", unreachable=True)]
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    send_all = file_sink(tmp_path / "later" / "alerts.ndjson")
    (outcome,) = send_all([parcel(1)])
    assert outcome == Later("the file cannot be written: No such file or directory", unreachable=True)
    (tmp_path / "later").mkdir()
    assert send_all([parcel(1)]) == [Sent()]


def test_two_that_write_one_file_mix_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "alerts.ndjson"

    def write(start: int) -> None:
        send_all = file_sink(path)
        for number in range(start, start + 20):
            send_all([parcel(number, entity_id="x" * 5_000)] * 5)

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(path)) == 200


# ---- the topic


@pytest.mark.parametrize(
    ("table", "settings", "said"),
    (
        ({}, {}, r"sinks\.siem: no Kafka broker is named"),
        ({"kafka": {"acks": 0}}, {"bootstrap": "broker:9092"}, "acks is Stillwatch's own to set"),
        ({"kafka": {"aks": 0}}, {"bootstrap": "broker:9092"}, "aks is unknown to kafka-python's producer"),
        ({"kafka": {"sasl_mechanism": "PLAIN"}}, {"bootstrap": "broker:9092"}, "has no effect"),
    ),
)
def test_a_topic_that_cannot_be_reached_so_is_refused_at_start(
    table: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        open_sink("siem", KafkaSink(type="kafka", topic="alerts", **table), Settings(**settings), SystemClock())
