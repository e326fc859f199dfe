"""`stillwatch simulate` to files: what it writes, what it refuses, and that it leaves nothing half done."""

import csv
import gzip
import io
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
import typer
import zstandard
from typer.testing import CliRunner, Result

from jobs.simulate import EXIT_INTERRUPTED, Options, parse_start, plan_simulation, simulate
from pipeline.errors import ConfigError
from pipeline.io.replay import KeyedLine, at_rate, client_settings, key_of, open_lines

SMALL = ("--accounts", "40", "--hours", "2", "--start", "2026-03-02T09:00Z")
NOW = datetime(2026, 3, 9, 12, 30, 15, 250_000, tzinfo=UTC)
PROGRAM = "import typer; from jobs.simulate import simulate; app = typer.Typer(); app.command()(simulate); app()"
INTERRUPT_TIMEOUT_S = 60.0

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in an empty folder; an error other than an exit is raised."""
    app = typer.Typer()
    app.command()(simulate)
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), catch_exceptions=False)

    return invoke


def read_back(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as stream:
            return stream.read()
    return data


def options(**given: object) -> Options:
    names = Options.__slots__
    return Options(**{**dict.fromkeys(names), "kafka": (), "force": False, "out": Path("x"), **given})  # type: ignore[arg-type]


def test_a_file_its_accounts_and_its_labels_are_written(run: Run, tmp_path: Path) -> None:
    result = run("--out", "access.ndjson", *SMALL)

    assert result.exit_code == 0
    events = [orjson.loads(line) for line in (tmp_path / "access.ndjson").read_bytes().splitlines()]
    accounts = [orjson.loads(line) for line in (tmp_path / "accounts.ndjson").read_bytes().splitlines()]
    with (tmp_path / "labels.csv").open(newline="") as file:
        labels = list(csv.DictReader(file))
    assert list(labels[0]) == ["account_id", "label", "population", "family", "variant", "pool_id"]
    assert [account["account_id"] for account in accounts] == [label["account_id"] for label in labels]
    assert len(accounts) == 40
    assert {event["account_id"] for event in events} <= {label["account_id"] for label in labels}
    assert set(accounts[0]) == {
        "account_id", "created_at", "org_id", "plan", "payment_fingerprint", "email_domain", "country", "verified",
    }  # fmt: skip
    assert f"{len(events):,} events" in result.stdout
    assert "40 accounts, 6 of them harvesting" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["access.ndjson", "accounts.ndjson", "labels.csv"]


def test_every_format_holds_the_same_lines_and_the_same_seed_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    for name in ("a.ndjson", "b.ndjson.gz", "c.ndjson.zst", "d.ndjson.gz"):
        run("--out", name, "--seed", "3", "--force", *SMALL)

    plain = (tmp_path / "a.ndjson").read_bytes()
    assert read_back(tmp_path / "b.ndjson.gz") == plain
    assert read_back(tmp_path / "c.ndjson.zst") == plain
    assert (tmp_path / "b.ndjson.gz").read_bytes() == (tmp_path / "d.ndjson.gz").read_bytes()


def test_labels_go_to_the_folder_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "truth").mkdir()

    run("--out", "a.ndjson", "--labels", "truth", *SMALL)

    assert sorted(path.name for path in (tmp_path / "truth").iterdir()) == ["accounts.ndjson", "labels.csv"]


def test_events_stop_the_traffic_and_alone_go_as_far_as_it_takes(run: Run, tmp_path: Path) -> None:
    run("--out", "few.ndjson", "--events", "123", *SMALL)
    run("--out", "many.ndjson", "--events", "4000", "--accounts", "40", "--force")

    assert len((tmp_path / "few.ndjson").read_bytes().splitlines()) == 123
    many = (tmp_path / "many.ndjson").read_bytes().splitlines()
    assert len(many) == 4000
    assert orjson.loads(many[-1])["event_time"] < datetime.now(UTC).isoformat()


def test_without_a_start_the_traffic_ends_now() -> None:
    simulation = plan_simulation(options(hours=6.0), NOW)

    assert simulation.start == NOW.replace(microsecond=0) - timedelta(hours=6)
    assert simulation.hours == 6.0


def test_with_events_alone_the_traffic_ends_shortly_before_now() -> None:
    wanted = 20_000
    simulation = plan_simulation(options(events=wanted), NOW)
    last = ""
    for _, event in zip(range(wanted), simulation.events(), strict=False):
        last = event["event_time"]

    ends = datetime.fromisoformat(last)
    assert ends <= NOW
    assert NOW - ends < (NOW - simulation.start) / 2


def test_a_start_without_offset_is_utc() -> None:
    assert parse_start("2026-03-02T10:00") == datetime(2026, 3, 2, 10, tzinfo=UTC)
    assert parse_start("2026-03-02T10:00+02:00") == datetime(2026, 3, 2, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    (
        ((), "say where"),
        (("--out", "a.ndjson", "--topic", "t"), "say where"),
        (("--topic", "t"), "go together"),
        (("--bootstrap", "127.0.0.1:9"), "go together"),
        (("--bootstrap", "127.0.0.1:9", "--topic", "a b"), "topic name"),
        (("--bootstrap", "127.0.0.1:9", "--topic", "t", "--kafka", "acks"), "KEY=VALUE"),
        (("--bootstrap", "127.0.0.1:9", "--topic", "t", "--kafka", "akcs=1"), "akcs"),
        (("--bootstrap", "127.0.0.1:9", "--topic", "t", "--kafka", "linger_ms=soon"), "whole number"),
        (("--out", "a.ndjson", "--kafka", "acks=1"), "--kafka"),
        (("--out", "a.ndjson", "--partitions", "3"), "--partitions"),
        (("--out", "a.ndjson", "--rate", "0"), "--rate"),
        (("--out", "a.ndjson", "--rate", "nan"), "--rate"),
        (("--out", "a.ndjson", "--hours", "-2"), "hours"),
        (("--out", "a.ndjson", "--hours", "inf"), "--hours"),
        (("--out", "a.ndjson", "--accounts", "3"), "accounts"),
        (("--out", "a.ndjson", "--attack-share", "2"), "attack share"),
        (("--out", "a.ndjson", "--start", "yesterday"), "--start"),
        (("--out", "a.ndjson", "--start", "0001-01-01"), "between 1990"),
        (("--out", "missing/a.ndjson"), "does not exist"),
        (("--out", "a.ndjson", "--labels", "missing"), "does not exist"),
        (("--out", "."), "is a folder"),
        (("--out", "a.ndjson", "--replay", "missing.ndjson"), "cannot read"),
        (("--out", "a.ndjson", "--replay", "b.ndjson", "--seed", "1"), "--seed"),
        (("--out", "a.ndjson", "--replay", "b.ndjson", "--attack-share", "0"), "--attack-share"),
    ),
)
def test_wrong_flags_are_refused_before_anything_is_written(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as refused:
        run(*arguments)

    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_not_repeated_in_an_error() -> None:
    with pytest.raises(ConfigError) as refused:
        client_settings(["sasl_pain_password=hunter2"])

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("existing", ("a.ndjson", "accounts.ndjson", "labels.csv"))
def test_a_file_that_exists_is_kept_without_force(run: Run, tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")

    with pytest.raises(ConfigError, match="exists"):
        run("--out", "a.ndjson", *SMALL)

    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "precious"
    assert run("--out", "a.ndjson", "--force", *SMALL).exit_code == 0
    assert (tmp_path / existing).read_text() != "precious"


@pytest.mark.parametrize("suffix", ("", ".gz", ".zst"))
def test_replaying_to_a_file_keeps_every_byte(run: Run, tmp_path: Path, suffix: str) -> None:
    lines = b'{"account_id":"a","x": 1}\n\nno json\r\n{"account_id":7}\n\xff\xfe\n[1]\n{"account_id":"\\ud800"}\n'
    packed = {
        "": lines,
        ".gz": gzip.compress(lines),
        ".zst": zstandard.compress(lines[:9]) + zstandard.compress(lines[9:]),
    }
    (tmp_path / f"in.ndjson{suffix}").write_bytes(packed[suffix])

    result = run("--replay", f"in.ndjson{suffix}", "--out", f"out.ndjson{suffix}")

    assert read_back(tmp_path / f"out.ndjson{suffix}") == lines
    assert "7 events" in result.stdout
    assert "6 lines without a JSON account_id" in result.stdout


def test_a_replay_stops_after_the_events_asked_for(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_bytes(b"1\n2\n3\n")

    run("--replay", "in.ndjson", "--out", "out.ndjson", "--events", "2")

    assert (tmp_path / "out.ndjson").read_bytes() == b"1\n2\n"


@pytest.mark.parametrize("suffix", (".gz", ".zst"))
def test_a_damaged_file_is_named_and_nothing_is_left(run: Run, tmp_path: Path, suffix: str) -> None:
    lines = b"".join(b'{"account_id":"%d"}\n' % number for number in range(90_000))
    whole = gzip.compress(lines) if suffix == ".gz" else zstandard.compress(lines)
    damaged = tmp_path / f"in.ndjson{suffix}"
    damaged.write_bytes(whole[: len(whole) // 2] + b"\0" * 64)

    with pytest.raises(ConfigError, match="damaged"):
        run("--replay", damaged.name, "--out", "out.ndjson")

    assert [path.name for path in tmp_path.iterdir()] == [damaged.name]


def test_a_truncated_zst_file_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson.zst"
    whole = zstandard.compress(os.urandom(400_000).replace(b"\n", b" ") + b"\n")
    path.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(ConfigError, match="damaged"), open_lines(path) as lines:
        list(lines)


def test_replaying_a_file_onto_itself_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_bytes(b"1\n")

    with pytest.raises(ConfigError, match="same file"):
        run("--replay", "in.ndjson", "--out", "in.ndjson", "--force")

    assert (tmp_path / "in.ndjson").read_bytes() == b"1\n"


@pytest.mark.parametrize(
    ("line", "key"),
    (
        (b'{"account_id":"acct_1","x":[1]}', b"acct_1"),
        ('{"account_id":"é"}'.encode(), "é".encode()),
        (b'{"account_id":null}', None),
        (b'{"account_id":12}', None),
        (b"{}", None),
        (b'["account_id"]', None),
        (b'{"account_id":"a"', None),
        (b"", None),
        (b"\xff", None),
    ),
)
def test_the_key_is_the_account_where_there_is_one(line: bytes, key: bytes | None) -> None:
    assert key_of(line) == key


def test_a_rate_holds_lines_back() -> None:
    waited: list[float] = []
    lines = [KeyedLine(None, b"x")] * 5

    assert list(at_rate(lines, 0.5, waited.append)) == lines

    # Nothing waits for real here, so each line is due two seconds further ahead of the clock.
    assert [round(seconds) for seconds in waited] == [2, 4, 6, 8]


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_an_interrupted_run_ends_with_whole_lines_and_says_how_many(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, "--out", "a.ndjson", "--events", "100000000", "--accounts", "40"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline_s = time.monotonic() + INTERRUPT_TIMEOUT_S
        while sum(path.stat().st_size for path in tmp_path.glob(".a.ndjson.*.partial")) < 1_000_000:
            assert time.monotonic() < deadline_s
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        told, complaints = process.communicate(timeout=INTERRUPT_TIMEOUT_S)

    lines = (tmp_path / "a.ndjson").read_bytes().splitlines()
    assert process.returncode == EXIT_INTERRUPTED
    assert complaints == ""
    assert told.startswith(f"interrupted: {len(lines):,} events")
    assert all(orjson.loads(line)["account_id"] for line in lines)


def test_a_killed_run_leaves_no_file_under_its_name(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, "--out", "a.ndjson", "--events", "100000000", "--accounts", "40"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as process:
        deadline_s = time.monotonic() + INTERRUPT_TIMEOUT_S
        while not list(tmp_path.glob(".a.ndjson.*.partial")):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        process.kill()

    assert not (tmp_path / "a.ndjson").exists()


def test_accounts_stay_in_order_in_the_file(run: Run, tmp_path: Path) -> None:
    run("--out", "a.ndjson", *SMALL)

    last: dict[str, str] = {}
    counted: Counter[str] = Counter()
    for line in (tmp_path / "a.ndjson").read_bytes().splitlines():
        event = orjson.loads(line)
        assert last.get(event["account_id"], "") <= event["event_time"]
        last[event["account_id"]] = event["event_time"]
        counted[event["account_id"]] += 1
    assert counted.total() > 100
