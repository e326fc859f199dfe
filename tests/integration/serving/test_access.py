"""`stillwatch serve` as a process: who gets in, and what it refuses."""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path

import pytest

from pipeline.io.catalog import Catalog
from tests.integration.serving.site import KEY, alert_id, digest_of
from tests.triage import BOUND_S, Served, Visitor, serving
from tests.unit.io.dossier_lake import HARVESTER

# ---- who gets in


@pytest.mark.parametrize(
    "path", ("/", "/audit", "/exceptions", f"/alerts/{'a' * 32}", f"/accounts/{'b' * 64}", "/nothing")
)
def test_nothing_is_shown_to_strangers(served: Served, path: str) -> None:
    answer = served.visitor().get(path)
    assert answer.status == 303
    assert answer.headers["location"].startswith("/login?next=")
    assert answer.body == b""


def test_strangers_change_nothing(served: Served, catalog: Catalog) -> None:
    before = len(catalog.desk.audit.records())
    stranger = served.visitor()
    for path in (f"/accounts/{digest_of(HARVESTER)}/verdict", "/exceptions", f"/alerts/{'a' * 32}/claim", "/accounts"):
        answer = stranger.send(
            path, {"csrf": "x", "decision": "benign", "why": "x", "over": "0", "verdict_id": "0" * 32}
        )
        assert (answer.status, answer.headers["location"]) == (303, "/login?over=1")
    assert len(catalog.desk.audit.records()) == before


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    (
        ({"key": "wrong", "name": "Ana"}, 403, "not the key"),
        ({"key": "", "name": "Ana"}, 403, "not the key"),
        ({"key": KEY, "name": " "}, 400, "Give your name"),
        ({"key": KEY, "name": "a\u202eb"}, 400, "Give your name"),
        ({"key": KEY, "name": "x" * 81}, 400, "Give your name"),
        ({"key": "\udcff", "name": "Ana"}, 400, "cannot be read"),
    ),
)
def test_a_log_in_without_key_or_name_is_refused(
    served: Served, fields: dict[str, str], status: int, said: str
) -> None:
    visitor = served.visitor()
    answer = visitor.send("/login", fields)
    assert answer.status == status
    assert said in answer.text
    assert visitor.cookies == {}


@pytest.mark.parametrize(
    "where",
    ("https://evil.example", "//evil.example", "/\\evil.example", "/login", "javascript:alert(1)", "/audit/../x"),
)
def test_a_log_in_leads_to_pages_of_its_own_and_nowhere_else(served: Served, where: str) -> None:
    answer = served.visitor().post("/login", key=KEY, name="Ana", next=where)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    alert_page = f"/alerts/{'a' * 32}"
    assert served.visitor().post("/login", key=KEY, name="Ana", next=alert_page).headers["location"] == alert_page


def test_a_cookie_is_not_for_scripts_nor_for_other_sites_and_ends_with_the_log_out(
    served: Served, ana: Visitor
) -> None:
    cookie = served.visitor().post("/login", key=KEY, name="Ana").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    old = dict(ana.cookies)
    assert ana.fill("/", "/logout").status == 303
    ana.cookies = old
    assert ana.get("/").status == 303
    ana.cookies = dict.fromkeys(old, "forged")
    assert ana.get("/").status == 303


def test_a_link_lets_one_person_in_and_the_next_one_is_printed(lake: Path) -> None:
    with serving(lake) as running:
        link = running.log_in_address()
        key = link.partition("key=")[2]
        assert f'name="key" value="{key}"' in running.visitor().get(f"/login?key={key}").text
        first = running.visitor()
        assert first.post("/login", key=key, name="Ana").headers["location"] == "/"
        assert running.visitor().post("/login", key=key, name="Mallory").status == 403
        assert "Ben" in running.visitor("Ben").get("/").text
        assert "Ana" in first.get("/").text


# ---- what every request must be


@pytest.mark.parametrize(
    "host", ("evil.example", "evil.example:8477", "127.0.0.1.evil.example", "localhost.evil.example:80", "[::1].x")
)
def test_another_host_name_is_refused(served: Served, ana: Visitor, host: str) -> None:
    for answer in (ana.get("/", Host=host), served.visitor().get("/login", Host=host)):
        assert answer.status == 421
        assert "Open alerts" not in answer.text


def test_the_machines_own_names_are_answered(served: Served, ana: Visitor) -> None:
    port = served.netloc.rpartition(":")[2]
    for host in (f"localhost:{port}", "LOCALHOST", "127.0.0.1:9000", "[::1]:9000"):
        assert ana.get("/", Host=host).status == 200


@pytest.mark.parametrize(
    "headers",
    (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ),
)
def test_a_form_of_another_site_does_nothing(ana: Visitor, catalog: Catalog, headers: dict[str, str]) -> None:
    before = len(catalog.desk.audit.records())
    claim = f"/alerts/{alert_id(catalog, HARVESTER)}/claim"
    answer = ana.send(claim, {"csrf": ana.csrf()}, **headers)
    assert (answer.status, len(catalog.desk.audit.records())) == (403, before)


def test_a_form_without_its_token_does_nothing(served: Served, ana: Visitor, catalog: Catalog) -> None:
    """Each form, with no token, with another person's, and with one cut short."""
    before = len(catalog.desk.audit.records())
    account, number = digest_of(HARVESTER), alert_id(catalog, HARVESTER)
    others = served.visitor("Ben", KEY).csrf()
    paths = (
        f"/accounts/{account}/verdict", f"/accounts/{account}/exception", f"/accounts/{account}/texts", "/exceptions",
        f"/exceptions/{'0' * 32}/end", f"/alerts/{number}/claim", f"/alerts/{number}/release", "/accounts", "/logout",
    )  # fmt: skip
    for path in paths:
        for token in ({}, {"csrf": others}, {"csrf": ana.csrf()[:-1]}, {"csrf": "é"}):
            answer = ana.send(path, {**token, "decision": "benign", "why": "x", "over": "0", "verdict_id": "0" * 32})
            assert answer.status == 403, path
    assert len(catalog.desk.audit.records()) == before
    assert ana.get("/").status == 200


@pytest.mark.parametrize(
    ("method", "path", "kind", "body", "status"),
    (
        ("PUT", "/", "", b"", 405),
        ("TRACE", "/", "", b"", 405),
        ("POST", "/", "application/x-www-form-urlencoded", b"", 405),
        ("POST", "/accounts", "application/json", b"{}", 415),
        ("POST", "/accounts", "multipart/form-data; boundary=x", b"--x--", 415),
        ("POST", "/accounts", "application/x-www-form-urlencoded", b"a=" + b"x" * 170_000, 413),
        ("POST", "/accounts", "application/x-www-form-urlencoded", b"\xff\xfe", 400),
        ("POST", "/accounts", "application/x-www-form-urlencoded", b"&".join(b"a=1" for _ in range(100)), 400),
    ),
)
def test_what_is_no_form_is_refused(ana: Visitor, method: str, path: str, kind: str, body: bytes, status: int) -> None:
    token = f"csrf={ana.csrf()}&".encode() if status == 405 and method == "POST" else b""
    answer = ana.ask(method, path, token + body, **({"Content_Type": kind} if kind else {}))
    assert answer.status == status


def test_a_body_without_an_end_is_cut_off(served: Served) -> None:
    """Sent in pieces, without saying how long it is."""
    host, _, port = served.netloc.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=BOUND_S) as connection:
        connection.sendall(
            f"POST /login HTTP/1.1\r\nHost: {served.netloc}\r\nTransfer-Encoding: chunked\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n\r\n".encode()
        )
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(80):
                connection.sendall(b"1000\r\n" + b"a" * 4096 + b"\r\n")
        assert b" 413 " in connection.recv(100)


def test_every_answer_forbids_scripts_frames_and_keeping(served: Served, ana: Visitor, catalog: Catalog) -> None:
    pages = (
        "/",
        "/audit",
        "/exceptions",
        f"/alerts/{alert_id(catalog, HARVESTER)}",
        f"/accounts/{digest_of(HARVESTER)}",
        "/nothing",
    )
    for answer in (
        *map(ana.get, pages),
        served.visitor().get("/login"),
        served.visitor().get("/", Host="evil.example"),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "script-src" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "<script" not in answer.text
        assert " style=" not in answer.text
        assert not re.search(r"\son\w+=", re.sub(r">[^<]*<", "><", answer.text))


def test_style_sheets_are_kept_and_are_all_that_is_open(served: Served, ana: Visitor) -> None:
    sheets = re.findall(r'<link rel="stylesheet" href="([^"]+)"', ana.get(f"/accounts/{digest_of(HARVESTER)}").text)
    assert len(sheets) == 2
    for path in sheets:
        answer = served.visitor().get(path)
        assert (answer.status, answer.headers["content-type"]) == (200, "text/css; charset=utf-8")
        assert "immutable" in answer.headers["cache-control"]
    for path in ("/static/../jobs/serve.py", "/static/%2e%2e/x", "/static/", "/static/0/triage.css"):
        assert served.visitor().get(path).status == 404
