"""`stillwatch deliver` and its commands, of a real catalog: what they say, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.errors import ConfigError, RetryableError, StillwatchError
from pipeline.io.catalog_alerts import PAST
from pipeline.io.desk.audit_log import AuditFilter
from tests.delivering import Outgoing, commit_alerts
from tests.misbehaving import Misbehaving, answering
from tests.parcels import alert

SECRET = "a-secret-of-more-than-24-bytes"
Out = Callable[..., Outgoing]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Out:
    monkeypatch.setenv("SOC_SECRET", SECRET)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda sinks, **settings: Outgoing(tmp_path, sinks, **settings)


def run(outgoing: Outgoing, *words: str) -> tuple[int, str]:
    """Exit code and what was printed; an error is raised as it is."""
    result = CliRunner().invoke(app, ["deliver", *words, "--config", str(outgoing.config)])
    if isinstance(result.exception, StillwatchError):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


def refusing(server: Misbehaving) -> dict[str, Any]:
    return {"type": "webhook", "url": server.url, "secret_env": "SOC_SECRET"}


def test_an_operator_sees_what_is_dead_and_sends_it_again(out: Out, tmp_path: Path) -> None:
    with Misbehaving([answering(400), answering(400), answering(200)]) as server:
        outgoing = out({"soc": refusing(server), "file": {"type": "file", "path": str(tmp_path / "alerts.ndjson")}})
        ids = outgoing.raise_alerts(range(3))
        assert run(outgoing, "--once")[0] == 0
        code, said = run(outgoing, "status")
        assert code == 0
        assert "it answered 400" in said
        assert ids[0] in said
        state = json.loads(run(outgoing, "status", "--json")[1])
        assert {sink["sink"]: (sink["sent"], sink["dead"]) for sink in state["sinks"]} == {
            "file": (3, 0),
            "soc": (1, 2),
        }
        assert [one["key"] for one in state["dead"]] == [ids[0], ids[1]]
        assert run(outgoing, "replay", "--sink", "soc", "--alert", ids[1], "--by", "ana")[1] == "1 to be sent again\n"
        assert run(outgoing, "--once")[0] == 0
    assert [request.headers["webhook-id"] for request in server.requests] == [*ids, ids[1]]
    with outgoing.catalog() as catalog:
        (record,) = catalog.desk.audit.records(AuditFilter(action="delivery.replayed"))
    assert (record.actor, record.subject, record.details["keys"]) == ("ana", "soc", [ids[1]])


def test_what_a_backfill_raised_is_sent_when_somebody_asks(out: Out, tmp_path: Path) -> None:
    path = tmp_path / "alerts.ndjson"
    outgoing = out({"file": {"type": "file", "path": str(path)}})
    with outgoing.catalog() as catalog:
        catalog.alerts_are = PAST
        commit_alerts(catalog, [alert(1)])
    assert run(outgoing, "--once")[0] == 0
    assert not path.exists()
    assert "deliver replay --past" in run(outgoing, "status")[1]
    assert run(outgoing, "replay", "--past", "--by", "ana")[0] == 0
    assert run(outgoing, "--once")[0] == 0
    assert json.loads(path.read_text())["alert_id"] == alert(1).alert_id


@pytest.mark.parametrize(
    ("words", "said"),
    (
        (("replay",), "say what to send again"),
        (("replay", "--all"), "nothing of that is dead"),
        (("replay", "--past"), "nothing of that is past"),
        (("replay", "--unclear", "--sink", "file"), "leave --sink out"),
        (("replay", "--alert", "zz\x1b[31m"), r"no id of what is dead begins so"),
        (("replay", "--past", "--alert", "abc"), "no alert's id begins so"),
        (("test", "nobody"), "there is no sink 'nobody' in the settings; there are: file"),
        (("--lake", "x", "status"), "--lake goes behind the command"),
    ),
)
def test_what_cannot_be_is_said_in_one_line(out: Out, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    outgoing = out({"file": {"type": "file", "path": str(tmp_path / "alerts.ndjson")}})
    with pytest.raises(ConfigError, match=said) as error:
        run(outgoing, *words)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


def test_without_a_sink_there_is_nothing_to_do(out: Out) -> None:
    with pytest.raises(ConfigError, match=r"put a table \[sinks.NAME\] into the settings"):
        run(out({}), "--once")


def test_a_message_may_not_take_longer_than_its_sink_is_held(out: Out, tmp_path: Path) -> None:
    sink = {"type": "file", "path": str(tmp_path / "alerts.ndjson"), "timeout_s": 30.0}
    said = (
        r"for sink file that is 30 s \(timeout_s, as set\): set delivery_lease_s = 120, or timeout_s = 15 or less in "
        r"\[sinks\.file\]"
    )
    with pytest.raises(ConfigError, match=said):
        run(out({"file": sink}), "--once")
    outgoing = out({})
    outgoing.config.write_text(f"delivery_lease_s = 20\n[sinks.file]\ntype = 'file'\npath = '{tmp_path / 'a'}'\n")
    with pytest.raises(
        ConfigError, match=r"10 s \(timeout_s, its default\): set delivery_lease_s = 40, or timeout_s = 5 "
    ):
        run(outgoing, "--once")


def test_status_of_a_sink_that_left_the_settings_says_so(out: Out, tmp_path: Path) -> None:
    sink = {"type": "file", "path": str(tmp_path / "alerts.ndjson")}
    outgoing = out({"file": sink})
    assert run(outgoing, "--once")[0] == 0
    renamed = out({"other": sink})
    said = run(renamed, "status")[1]
    assert "not in the settings" in said
    assert "never started" in said


def test_a_sink_that_left_the_settings_is_forgotten_when_somebody_asks(out: Out, tmp_path: Path) -> None:
    with Misbehaving([answering(400), answering(503)]) as server:
        outgoing = out({"soc": refusing(server)})
        outgoing.raise_alerts(range(4))
        assert run(outgoing, "--once")[0] == 4
    with pytest.raises(ConfigError, match=r"sink soc stands in the settings: take its table \[sinks\.soc\] out"):
        run(outgoing, "forget", "soc", "--apply")
    renamed = out({"file": {"type": "file", "path": str(tmp_path / "alerts.ndjson")}})
    with pytest.raises(ConfigError, match="there is no sink 'sock' on record; there are: soc"):
        run(renamed, "forget", "sock", "--apply")
    said = run(renamed, "forget", "soc")[1]
    assert (
        said == "sink soc has 3 alerts waiting for it and 1 dead; --apply forgets all of it, and none is sent to it\n"
    )
    assert "soc" in run(renamed, "status")[1]
    assert run(renamed, "forget", "soc", "--by", "ana", "--apply")[1] == (
        "sink soc is forgotten, with 3 alerts waiting for it and 1 dead\n"
    )
    assert "soc" not in run(renamed, "status")[1]
    with renamed.catalog() as catalog:
        (record,) = catalog.desk.audit.records(AuditFilter(action="delivery.sink_forgotten"))
    assert (record.actor, record.subject, record.details["waiting"]) == ("ana", "soc", 3)


def test_a_test_says_that_it_is_one_and_changes_nothing_else(out: Out) -> None:
    with Misbehaving([answering(200)]) as server:
        outgoing = out({"soc": refusing(server)})
        outgoing.raise_alerts(range(2))
        assert run(outgoing, "test", "soc", "--by", "ana") == (0, "sink soc took the test\n")
    (request,) = server.requests
    assert request.json()["test"] is True
    with outgoing.catalog() as catalog:
        assert set(catalog.outbox().values()) == {"new"}
        (record,) = catalog.desk.audit.records(AuditFilter(action="delivery.tested"))
    assert (record.actor, record.details) == ("ana", {"outcome": "sent"})


@pytest.mark.parametrize(("status", "kind"), ((401, ConfigError), (503, RetryableError)))
def test_a_test_that_fails_says_why(out: Out, status: int, kind: type[StillwatchError]) -> None:
    with Misbehaving([answering(status)]) as server:
        outgoing = out({"soc": refusing(server)})
        with pytest.raises(kind, match=f"it answered {status}") as error:
            run(outgoing, "test", "soc", "--by", "ana")
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("table", "said"),
    (
        ({"type": "pigeon"}, r"sinks\.soc\.type: expected one of file, kafka, webhook, slack, pagerduty"),
        ({"path": "x"}, r"sinks\.soc\.type: expected one of"),
        ({"type": "slack", "url": "https://hooks.example/hunter2"}, "a secret is not written into the settings"),
        ({"type": "webhook", "url": "https://x.example", "secret": "hunter2"}, "a secret is not written"),
        ({"type": "webhook", "url": "https://me:hunter2@x.example", "secret_env": "X"}, "in the clear"),
        ({"type": "webhook", "url": "http://x.example/hunter2", "secret_env": "X"}, "allow_http = true"),
        ({"type": "webhook", "url": "hunter2", "secret_env": "X"}, "no URL of the form"),
        ({"type": "pagerduty"}, "one of secret_env and secret_file"),
        ({"type": "slack", "secret_env": "STILLWATCH_SLACK"}, "must not begin with STILLWATCH_"),
        ({"type": "file", "path": "x", "rate_per_minute": -1}, r"greater than or equal to 0 \(got -1\)"),
        ({"type": "file", "path": "x", "pth": "y"}, "unknown, did you mean path"),
        ({"type": "file", "path": "x", "severities": ["hihg"]}, r"severities\.0: .*\(got 'hihg'\)"),
        ({"type": "kafka", "topic": "x", "kafka": {"sasl_plain_password": "hunter2"}}, "STILLWATCH_KAFKA__SASL_PLAIN"),
    ),
)
def test_a_wrong_table_is_named_and_no_secret_shown(out: Out, table: dict[str, Any], said: str) -> None:
    outgoing = out({})
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items() if not isinstance(value, dict))
    inner = "".join(
        f"[sinks.soc.{name}]\n" + "".join(f"{key} = {json.dumps(one)}\n" for key, one in value.items())
        for name, value in table.items()
        if isinstance(value, dict)
    )
    outgoing.config.write_text(f"[sinks.soc]\n{lines}{inner}")
    with pytest.raises(ConfigError, match=said) as error:
        run(outgoing, "status")
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)
