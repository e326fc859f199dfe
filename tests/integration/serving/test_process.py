"""`stillwatch serve` as a process: its start, its end, and what happens to it in between."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.config import CATALOG_FILE, read_settings
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.watch import load_watch
from tests import mounts
from tests.integration.serving.site import KEY, SOON, alert_id, digest_of
from tests.lake_maker import make_lake
from tests.triage import BOUND_S, ROOT, Served, Visitor, serving
from tests.unit.io.dossier_lake import HARVESTER, HOSTILE, traffic


def test_the_log_names_no_account_no_person_and_no_key(lake: Path) -> None:
    with serving(lake) as running:
        ana = running.visitor("Ana Nym")
        page = f"/accounts/{digest_of(HARVESTER)}"
        ana.fill(page, f"{page}/texts")
        ana.fill("/", "/accounts", account=HOSTILE)
        ana.get("/login?key=sesame&next=/alerts")
        running.end()
        logged = "".join(running.logged)
    assert '"page": "/accounts/{sha256:str}"' in logged
    for word in (HARVESTER, digest_of(HARVESTER), "Ana Nym", "sesame", "exam question", "svg"):
        assert word not in logged


@pytest.mark.parametrize("how", (signal.SIGTERM, signal.SIGINT))
def test_it_ends_in_good_order_while_somebody_is_connected(lake: Path, how: int) -> None:
    with serving(lake) as running:
        host, _, port = running.netloc.rpartition(":")
        with socket.create_connection((host, int(port))):
            assert running.end(how) == 0
        assert running.said[-1] == "stillwatch serve: stopped\n"
        assert "Traceback" not in "".join(running.logged)


@pytest.mark.parametrize(
    ("flags", "said"),
    (
        (["--host", "0.0.0.0"], "needs a key (--token-file FILE, or STILLWATCH_SERVE_TOKEN) or a reverse proxy"),  # noqa: S104
        (["--host", "::"], "needs a key"),
        (["--token-file", "/nowhere/key"], "--token-file /nowhere/key: No such file"),
        (["--trust-proxy-user", "X-User", "--proxy-from", "here"], "expected addresses or networks"),
        (["--trust-proxy-user", "X-User", "--proxy-from", ""], "names no address"),
        (["--trust-proxy-user", "X User"], "no name of a header"),
        (["--public-url", "triage.example.org"], "expected http(s)://NAME"),
        (["--catalog", "sqlite:////nowhere/catalog.db"], "there is no catalog"),
    ),
)
def test_a_wrong_start_is_one_line(lake: Path, flags: list[str], said: str) -> None:
    command = [sys.executable, "-m", "jobs.cli", "serve", "--lake", str(lake), "--port", "0", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=BOUND_S)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_said_so(served: Served, lake: Path) -> None:
    port = served.netloc.rpartition(":")[2]
    command = [sys.executable, "-m", "jobs.cli", "serve", "--lake", str(lake), "--port", port]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=BOUND_S)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr


def test_behind_a_proxy_its_word_counts_and_nobody_elses(lake: Path) -> None:
    flags = (
        "--trust-proxy-user",
        "X-Forwarded-User",
        "--proxy-from",
        "127.0.0.1/32",
        "--public-url",
        "https://triage.example.org",
    )
    with serving(lake, *flags, STILLWATCH_SERVE_TOKEN=KEY) as running:
        assert running.address == "https://triage.example.org"
        port = running.process  # the address is the proxy's; the real one is asked of the system below
        assert port.poll() is None
        netloc = _listening_netloc(running)
        proxy = Visitor(netloc, headers={"X-Forwarded-User": "ana@example.org", "Authorization": f"Bearer {KEY}"})
        answer = proxy.get("/", Host="triage.example.org")
        assert (answer.status, "ana@example.org" in answer.text, "Log out" in answer.text) == (200, True, False)
        assert "Secure" in answer.headers["set-cookie"]
        assert proxy.send("/accounts", {"csrf": proxy.csrf(), "account": HARVESTER}).status == 303
        assert proxy.get("/login").status == 303
        for headers in (
            {"X-Forwarded-User": "ana@example.org"},
            {"X-Forwarded-User": "ana@example.org", "Authorization": "Bearer wrong"},
            {"Authorization": f"Bearer {KEY}"},
            {"X-Forwarded-User": "", "Authorization": f"Bearer {KEY}"},
        ):
            refused = Visitor(netloc, cookies=dict(proxy.cookies), headers=headers).get("/")
            assert (refused.status, "Open alerts" in refused.text) == (403, False)
        other = Visitor(netloc, cookies=dict(proxy.cookies), headers={**proxy.headers, "X-Forwarded-User": "ben"})
        assert "ben" in other.get("/").text


def test_a_proxy_elsewhere_is_the_only_one_believed(lake: Path) -> None:
    with serving(lake, "--trust-proxy-user", "X-User", "--proxy-from", "192.0.2.0/24") as running:
        refused = Visitor(running.netloc, headers={"X-User": "ana", "X-Forwarded-For": "192.0.2.1"}).get("/")
        assert (refused.status, "did not come through it" in refused.text) == (403, True)


def _listening_netloc(running: Served) -> str:
    import psutil  # noqa: PLC0415  # for this test alone

    (ear,) = [
        one for one in psutil.Process(running.process.pid).net_connections("tcp") if one.status == psutil.CONN_LISTEN
    ]
    return f"127.0.0.1:{ear.laddr.port}"


def test_while_the_catalog_is_away_each_page_says_so_and_then_it_works_again(lake: Path, tmp_path: Path) -> None:
    copy = tmp_path / "lake"
    with make_lake(copy, traffic()[:20]):
        pass
    file = copy / CATALOG_FILE
    with serving(copy, STILLWATCH_SERVE_TOKEN=KEY) as running:
        ana = running.visitor("Ana", KEY)
        token = ana.csrf()
        with contextlib.closing(Catalog.open(sqlite_url(file), create=False)) as other, other.transaction(write=True):
            answer = ana.send(
                "/exceptions",
                {
                    "csrf": token,
                    "exception_id": "0" * 32,
                    "scope": "rule",
                    "subject": "risk_high",
                    "owner": "o",
                    "reason": "x",
                    "until": SOON,
                },
            )
            assert (answer.status, "The catalog does not answer" in answer.text) == (503, True)
            assert ana.get("/").status == 200  # readers of SQLite need not wait for a writer
        assert ana.get("/exceptions").status == 200
        running.end()
        assert "Traceback" not in "".join(running.logged)


def test_a_lake_on_a_read_only_mount_can_be_looked_at_and_nothing_decided(tmp_path: Path) -> None:
    with mounts.small_disk(tmp_path / "disk", megabytes=64) as disk:
        with make_lake(disk / "lake", traffic(), watch=load_watch(read_settings(None))) as maker:
            number = alert_id(maker.catalog, HARVESTER)
        mounts.remount(disk, "ro")
        with serving(disk / "lake", STILLWATCH_SERVE_TOKEN=KEY) as running:
            ana = running.visitor("Ana", KEY)
            for path in ("/", f"/alerts/{number}", f"/accounts/{digest_of(HARVESTER)}", "/exceptions", "/audit"):
                answer = ana.get(path)
                assert answer.status == 200
                assert "open for reading only" in answer.text
                assert "Give this verdict" not in answer.text
            refused = ana.send(f"/alerts/{number}/claim", {"csrf": ana.csrf()})
            assert (refused.status, "nothing was put on record" in refused.text) == (403, True)
            texts = ana.send(f"/accounts/{digest_of(HARVESTER)}/texts", {"csrf": ana.csrf()})
            assert (texts.status, "exam question about" in texts.text) == (403, False)


def test_many_at_once_are_all_answered(served: Served) -> None:
    """More than the lake has readers: each is answered, or told that it is busy."""
    ana = served.visitor("Ana", KEY)
    paths = ["/", "/audit", f"/accounts/{digest_of(HARVESTER)}", "/exceptions"] * 6
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda path=path: statuses.append(ana.get(path).status)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == len(paths)
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 18
