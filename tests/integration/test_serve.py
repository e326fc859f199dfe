"""`stillwatch serve` as a process: who gets in, what it refuses, and what it says of hostile values."""

from __future__ import annotations

import contextlib
import hashlib
import html
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.config import CATALOG_FILE, read_settings
from pipeline.delivery.ports import Done, Wanted
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.desk.audit_log import AuditFilter
from pipeline.watch import load_watch
from tests import mounts
from tests.lake_maker import make_lake
from tests.triage import BOUND_S, ROOT, Served, Visitor, hidden_fields, serving
from tests.unit.io.dossier_lake import HARVESTER, HOSTILE, event, traffic
from tests.unit.jobs.test_alerts import alert, keep

KEY = "correct-horse-battery-staple-7"
LONG = HOSTILE + "x" * 10_000
WORDS = "<img src=x onerror=alert(1)> {{ 7*7 }} </textarea><script>alert('why')</script> & \"'"
SPACED = " acct in spaces "
"""It has an event and nothing else."""

SOON = f"{datetime.now(UTC) + timedelta(days=20):%Y-%m-%d}"


def digest_of(account: str) -> str:
    return hashlib.sha256(account.encode()).hexdigest()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scored for real; two accounts with odd names have alerts, too."""
    root = tmp_path_factory.mktemp("serve") / "lake"
    with make_lake(root, [*traffic(), event(SPACED, 200)], watch=load_watch(read_settings(None))) as maker:
        reasons = (f"{WORDS}: x > 1", WORDS, f"{WORDS} taken", f"look at {WORDS}", f"what to do: {WORDS}")
        keep(maker.catalog, [alert(account, reasons=reasons, rule="odd") for account in (HOSTILE, LONG)])
    return root


@pytest.fixture(scope="module")
def served(lake: Path) -> Iterator[Served]:
    with serving(lake, STILLWATCH_SERVE_TOKEN=KEY) as running:
        yield running


@pytest.fixture
def ana(served: Served) -> Visitor:
    return served.visitor("Ana", KEY)


@pytest.fixture
def catalog(lake: Path) -> Iterator[Catalog]:
    with contextlib.closing(Catalog.open(sqlite_url(lake / CATALOG_FILE), create=False)) as opened:
        yield opened


def alert_id(catalog: Catalog, account: str) -> str:
    return next(one.alert_id for one in catalog.alerts() if one.entity_id == account and one.state == "live")


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


# ---- hostile values


@pytest.mark.parametrize("account", (HOSTILE, LONG))
def test_a_hostile_account_is_shown_as_text_wherever_it_stands(ana: Visitor, catalog: Catalog, account: str) -> None:
    number = alert_id(catalog, account)
    ana.fill(f"/accounts/{digest_of(account)}", f"/accounts/{digest_of(account)}/verdict", decision="unsure", why=WORDS)
    fields = {"owner": WORDS[:180], "reason": WORDS, "until": SOON, "rule": ""}
    ana.fill(f"/accounts/{digest_of(account)}", f"/accounts/{digest_of(account)}/exception", **fields)
    pages = (
        "/?decided=any&state=any&suppressed=any",
        f"/alerts/{number}",
        f"/accounts/{digest_of(account)}",
        "/exceptions",
        "/audit",
        f"/?account={digest_of(account)}&decided=any",
    )
    for path in pages:
        answer = ana.get(path)
        assert answer.status == 200, path
        assert not re.search(r"<(script|svg onload|img src=x)", answer.text), path
        assert "\x1b" not in answer.text
        assert "\u202e" not in answer.text
        assert "onload=alert(1)" in html.unescape(answer.text), path
        for name in re.findall(r'(?:href|action|src)="([^"]*)"', answer.text):
            assert re.match(r"(/|data:image/|data:,|#)", html.unescape(name)), name
    (verdict,) = [one for one in catalog.desk.verdicts.of(account) if one.source == "page"]
    assert (verdict.why, verdict.given_by) == (WORDS, "Ana")


@pytest.mark.parametrize(
    "path",
    (
        "/alerts/%3Cscript%3E", "/alerts/..%2f..%2fetc", f"/alerts/{'a' * 5000}", "/alerts/%00", f"/accounts/{'F' * 64}",
        f"/accounts/{'0' * 64}", "/accounts/%ff", "/%2e%2e/%2e%2e/etc/passwd", "/exceptions/x/end", "//evil.example/",
    ),
)  # fmt: skip
def test_addresses_of_nothing_are_pages_that_say_so(ana: Visitor, path: str) -> None:
    answer = ana.get(path)
    assert answer.status in {404, 405}
    assert "Stillwatch" in answer.text
    assert "<script>" not in answer.text


@pytest.mark.parametrize(
    "query",
    (
        "rule=%3Cscript%3E&severity=x&state=%00&sort=id;drop&after=zz", "after=" + "0" * 32, "account=x", "claimed=mine&done=x",
        "done=%3Cscript%3E", "before=-1&actor=%ff&action=';--", "before=" + "9" * 40, "state=any&state=live",
    ),
)  # fmt: skip
def test_addresses_that_ask_for_nonsense_get_what_is_usual(ana: Visitor, query: str) -> None:
    for path in ("/", "/audit", "/exceptions"):
        answer = ana.get(f"{path}?{query}")
        assert answer.status == 200
        assert "<script>" not in answer.text


def test_an_account_is_found_by_its_id_and_one_that_was_never_seen_says_what_is_like_it(ana: Visitor) -> None:
    found = ana.fill("/", "/accounts", account=f" {HARVESTER}\n")
    assert found.headers["location"] == f"/accounts/{digest_of(HARVESTER)}"
    missing = ana.fill("/", "/accounts", account="acct_lou")
    answer = ana.get(missing.headers["location"])
    assert answer.status == 200
    assert "Nothing is known of this account" in answer.text
    assert ana.fill("/", "/accounts", account=" ").status == 400
    spaced = ana.fill("/", "/accounts", account=SPACED)
    assert spaced.headers["location"] == f"/accounts/{digest_of(SPACED)}"
    assert "Nothing is known" not in ana.get(spaced.headers["location"]).text
    judged = ana.fill(missing.headers["location"], f"{missing.headers['location']}/verdict", decision="benign", why="x")
    assert (judged.status, "never seen" in judged.text) == (400, True)


# ---- two analysts, and the record


def test_claims_are_copied_to_the_lake_and_the_log_goes_on(lake: Path) -> None:
    with serving(lake, STILLWATCH_SERVE_TOKEN=KEY) as running:
        visitor = running.visitor("Cleo", KEY)
        with contextlib.closing(Catalog.open(sqlite_url(lake / CATALOG_FILE), create=False)) as catalog:
            number = alert_id(catalog, LONG)
            catalog.desk.claims.release(number, "a test", 0)  # whoever had it
        assert visitor.fill(f"/alerts/{number}", f"/alerts/{number}/claim").status == 303
        assert "Cleo" in (lake / "_desk" / "claims.ndjson").read_text()
        assert visitor.fill(f"/alerts/{number}", f"/alerts/{number}/release").status == 303
        assert "Cleo" not in (lake / "_desk" / "claims.ndjson").read_text()
        visitor.get("/exceptions")
        running.end(signal.SIGTERM)
        logged = [line for line in running.logged if '"request"' in line]
    assert len([line for line in logged if '"GET"' in line]) > 1
    assert "exception" in logged[-1]


def test_a_verdict_that_somebody_gave_meanwhile_is_shown_and_not_written_over(
    served: Served, ana: Visitor, catalog: Catalog
) -> None:
    ben, page = served.visitor("Ben", KEY), f"/accounts/{digest_of('acct_twin')}"
    action = f"{page}/verdict"
    assert ana.fill("/", "/accounts", account="acct_twin").headers["location"] == page
    mine = hidden_fields(ana.get(page).text, action)
    assert ben.fill(page, action, decision="benign", why="Ben knows them").status == 303
    late = ana.send(action, {**mine, "decision": "harvesting", "why": "One frame <b>again</b>"})
    assert late.status == 409
    assert "Ben was quicker" in late.text
    assert "Ben knows them" in late.text
    assert "One frame &lt;b&gt;again&lt;/b&gt;</textarea>" in late.text
    assert [one.given_by for one in catalog.desk.verdicts.of("acct_twin")] == ["Ben"]
    again = {**hidden_fields(late.text, action), "decision": "harvesting", "why": "Still"}
    assert ana.send(action, again).status == 303
    assert ana.send(action, again).status == 303  # a second click
    assert [one.given_by for one in catalog.desk.verdicts.of("acct_twin")] == ["Ana", "Ben"]
    assert (
        ana.fill(page, action, decision="withdrawn", why="Wrong account")
        .headers["location"]
        .startswith(f"{page}?done=withdrawn")
    )
    assert catalog.desk.verdicts.standing("acct_twin") is None


def test_one_of_two_who_claim_at_once_has_it(served: Served, catalog: Catalog) -> None:
    people = [served.visitor(name, KEY) for name in ("Ana", "Ben", "Cem", "Dee")]
    path = f"/alerts/{alert_id(catalog, HARVESTER)}/claim"
    places: list[str] = []
    tokens = [person.csrf() for person in people]
    threads = [
        threading.Thread(
            target=lambda who=who, token=token: places.append(who.send(path, {"csrf": token}).headers["location"])
        )
        for who, token in zip(people, tokens, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = sorted(place.partition("done=")[2] for place in places)
    assert done == ["claimed", "held", "held", "held"]
    (holder,) = catalog.desk.claims.holders([alert_id(catalog, HARVESTER)]).values()
    other = next(who for who, name in zip(people, ("Ana", "Ben", "Cem", "Dee"), strict=True) if name != holder)
    assert f'<span class="holder">{holder}</span>' in other.get("/").text


@pytest.mark.parametrize("where", ("queue", "alert"))
def test_a_page_that_is_stale_takes_nobodys_claim_away(served: Served, catalog: Catalog, where: str) -> None:
    number, names = alert_id(catalog, LONG), ("Ana", "O'Ben <b>", "Cem & Co")
    catalog.desk.claims.release(number, "a test", 0)
    ana, ben, cem = (served.visitor(name, KEY) for name in names)
    page = "/?sort=time&claimed=yes&rule=odd&decided=any&suppressed=any" if where == "queue" else f"/alerts/{number}"
    claim, release = f"/alerts/{number}/claim", f"/alerts/{number}/release"
    ben.fill(f"/alerts/{number}", claim)
    stale = hidden_fields(ana.get(page).text, release)
    assert stale["held_by"] == names[1]
    assert "done=released" in ben.fill(page, release).headers["location"]
    cem.fill(f"/alerts/{number}", claim)
    before = len(catalog.desk.audit.records())
    for form in (stale, {**stale, "held_by": ""}, {name: stale[name] for name in stale if name != "held_by"}):
        location = ana.send(release, form).headers["location"]
        assert "done=changed-hands" in location
        said = ana.get(location.partition("#")[0]).text
        assert "Nothing was released: somebody else has taken this alert on since you looked." in said
        assert "Cem &amp; Co has it now" in said
    assert catalog.desk.claims.holders([number]) == {number: "Cem & Co"}
    assert len(catalog.desk.audit.records()) == before
    assert "By now it is yours" in cem.get(location.partition("#")[0]).text
    fresh = hidden_fields(ana.get(page).text, release)
    assert "done=released" in ana.send(release, fresh).headers["location"]  # knowing whose it is, anybody may
    assert "done=free" in ana.send(release, fresh).headers["location"]
    assert "Nobody has it any more" in ana.get(location.partition("#")[0]).text


@pytest.mark.parametrize("where", ("queue", "alert"))
def test_who_claims_too_late_is_told_who_was_quicker(served: Served, catalog: Catalog, where: str) -> None:
    number = alert_id(catalog, LONG)
    catalog.desk.claims.release(number, "a test", 0)
    ana, ben = served.visitor("Ana", KEY), served.visitor("Ben <i>", KEY)
    page = "/?rule=odd&claimed=no&decided=any&suppressed=any" if where == "queue" else f"/alerts/{number}"
    claim = f"/alerts/{number}/claim"
    stale = hidden_fields(ana.get(page).text, claim)
    assert "done=claimed" in ben.fill(page, claim).headers["location"]
    location = ana.send(claim, stale).headers["location"]
    assert "done=held" in location
    assert "Somebody else was quicker. Ben &lt;i&gt; has it now" in ana.get(location.partition("#")[0]).text
    for forged in ("/?done=held", "/?done=held&alert=%3Cb%3E", f"/?done=held&alert={'0' * 32}", "/audit?done=held"):
        assert ana.get(forged).status == 200
    assert catalog.desk.claims.release(number, "a test", 0)


def test_texts_are_shown_when_asked_for_and_then_that_is_on_record(served: Served, catalog: Catalog) -> None:
    ana, page = served.visitor("Ana Reads", KEY), f"/accounts/{digest_of(HARVESTER)}"
    seen = AuditFilter(action="content", actor="Ana Reads")
    assert "exam question about topic" not in ana.get(page).text
    assert catalog.desk.audit.records(seen) == []
    shown = ana.fill(page, f"{page}/texts")
    assert "exam question about topic" in shown.text
    (record,) = catalog.desk.audit.records(seen)
    assert (record.action, record.subject, record.details["where"]) == ("content.seen", HARVESTER, "page")
    assert shown.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("changed", "said"),
    (
        ({"until": "2001-01-01"}, "would have expired already"),
        ({"until": "2999-01-01"}, "more than 90 days"),
        ({"until": "soon"}, "name the day on which it ends"),
        ({"owner": " "}, "the owner (who answers for it) is missing"),
        ({"reason": ""}, "the reason is missing"),
        ({"subject": " "}, "name is missing"),
        ({"scope": "planet"}, "say what it speaks of"),
        (
            {"scope": "account", "subject": "acct_lou"},
            "was never seen: the lake holds no event and no score of it; near",
        ),
        ({"scope": "account", "subject": "acct_lou"}, "near to it are acct_loud. Check the id"),
        ({"scope": "account", "subject": "Nobody"}, "account Nobody was never seen"),
        ({"rule": "risk_hihg"}, "did you mean risk_high?"),
        ({"scope": "rule", "subject": "risk_hihg"}, "did you mean risk_high?"),
    ),
)
def test_an_exception_must_say_what_who_why_and_until_when(
    ana: Visitor, catalog: Catalog, changed: dict[str, str], said: str
) -> None:
    fields = {
        "scope": "organisation",
        "subject": "org_1",
        "rule": "",
        "owner": "Sales",
        "reason": "Contract",
        "until": SOON,
    }
    answer = ana.fill("/exceptions", "/exceptions", **{**fields, **changed})
    assert (answer.status, said in answer.text) == (400, True)
    assert catalog.desk.exceptions.find(subject="org_1") == []


def test_an_exception_is_added_and_ended_once(ana: Visitor, catalog: Catalog) -> None:
    fields = {
        "scope": "organisation",
        "subject": "org_2",
        "owner": "Sales",
        "reason": "Contract",
        "until": SOON,
    }
    assert ana.fill("/exceptions", "/exceptions", **fields).status == 303
    (entry,) = catalog.desk.exceptions.find(subject="org_2")
    end = f"/exceptions/{entry.exception_id}/end"
    token = hidden_fields(ana.get("/exceptions").text, end)
    assert ana.send(end, token).headers["location"] == "/exceptions?done=ended"
    assert ana.send(end, token).headers["location"] == "/exceptions?done=not-ended"
    actions = [one.action for one in catalog.desk.audit.records(AuditFilter(subject="org_2"))]
    assert actions == ["exception.ended", "exception.added"]


def test_an_exception_on_an_account_that_was_never_seen_stays_in_its_form(ana: Visitor, catalog: Catalog) -> None:
    """Of the exceptions' page, and of the page that *Find* shows of any id."""
    account = "acct_lo <b>ud"
    page = ana.fill("/", "/accounts", account=account).headers["location"]
    said = {"owner": "Sales", "reason": "Contract <i>7</i>", "until": SOON}
    for form, action in (
        ({**said, "scope": "account", "subject": f"  {account} "}, "/exceptions"),
        (said, f"{page}/exception"),
    ):
        answer = ana.fill(page if action != "/exceptions" else action, action, **form)
        assert answer.status == 400
        assert "acct_lo &lt;b&gt;ud was never seen" in answer.text
        assert "`stillwatch exception add --account ID --anyway`" in answer.text
        assert "--lake" not in answer.text
        assert "Contract &lt;i&gt;7&lt;/i&gt;</textarea>" in answer.text
        assert 'value="Sales"' in answer.text
        assert f'value="{SOON}"' in answer.text
        if action == "/exceptions":
            assert 'name="subject" value="  acct_lo &lt;b&gt;ud "' in answer.text
    assert catalog.desk.exceptions.find(subject=account) == []


@pytest.mark.parametrize(
    ("scope", "subject"), (("organisation", "org_spaced"), ("account", "acct_009"), ("rule", "risk_high"))
)
def test_spaces_around_what_an_exception_speaks_of_are_not_kept(
    ana: Visitor, catalog: Catalog, scope: str, subject: str
) -> None:
    said = {"scope": scope, "subject": f" \t{subject}\u00a0 ", "owner": "Sales", "reason": "Pasted", "until": SOON}
    assert ana.fill("/exceptions", "/exceptions", **said).status == 303
    (entry,) = catalog.desk.exceptions.find(subject=subject)
    assert (entry.scope, entry.subject, entry.reason) == (scope, subject, "Pasted")
    assert catalog.desk.exceptions.end(entry.exception_id, "a test", entry.created_at_us + 1)


def test_an_account_whose_id_ends_in_spaces_and_whose_events_are_gone_gets_an_exception_on_its_page(
    ana: Visitor, catalog: Catalog
) -> None:
    account = " acct spaced  "
    keep(catalog, [alert(account)])
    page = f"/accounts/{digest_of(account)}"
    said = {"owner": "Sales", "reason": "Contract", "until": SOON}
    assert ana.fill(page, f"{page}/exception", **said).status == 303
    assert [one.subject for one in catalog.desk.exceptions.find(subject=account)] == [account]


def test_spaces_that_an_accounts_id_has_are_kept(ana: Visitor, catalog: Catalog) -> None:
    said = {"scope": "account", "subject": SPACED, "owner": "Sales", "reason": "Pasted", "until": SOON}
    assert ana.fill("/exceptions", "/exceptions", **said).status == 303
    assert [one.subject for one in catalog.desk.exceptions.find(subject=SPACED)] == [SPACED]


@pytest.mark.parametrize("where", ("exceptions", "account"))
def test_an_exceptions_form_that_is_sent_twice_counts_once(ana: Visitor, catalog: Catalog, where: str) -> None:
    page = "/exceptions" if where == "exceptions" else f"/accounts/{digest_of('acct_007')}"
    action = page if where == "exceptions" else f"{page}/exception"
    if where == "account":
        assert ana.fill("/", "/accounts", account="acct_007").headers["location"] == page
    subject = "org_twice" if where == "exceptions" else "acct_007"
    said = {"scope": "organisation", "subject": subject, "owner": "Sales", "reason": "Contract", "until": SOON}
    form = {**hidden_fields(ana.get(page).text, action), **said}
    for _ in range(2):
        answer = ana.send(action, form)
        assert (answer.status, "done=excepted" in answer.headers["location"]) == (303, True)
    (entry,) = catalog.desk.exceptions.find(subject=subject)
    assert entry.exception_id == form["exception_id"]
    assert len(catalog.desk.audit.records(AuditFilter(subject=subject))) == 1
    other = ana.send(action, {**form, "reason": "Another <b>contract</b>"})
    assert (other.status, "This form was sent before" in other.text) == (400, True)
    assert "Another &lt;b&gt;contract&lt;/b&gt;</textarea>" in other.text
    assert len(catalog.desk.exceptions.find(subject=subject)) == 1
    anew = {**form, **hidden_fields(other.text, action), "reason": "Another"}
    assert ana.send(action, anew).status == 303
    assert {one.reason for one in catalog.desk.exceptions.find(subject=subject)} == {"Contract", "Another"}


def test_a_verdicts_form_that_comes_again_with_other_words_says_that_it_does_not_count(
    served: Served, ana: Visitor, catalog: Catalog
) -> None:
    account = "acct_008"
    page = f"/accounts/{digest_of(account)}"
    assert ana.fill("/", "/accounts", account=account).headers["location"] == page
    action = f"{page}/verdict"
    kept = hidden_fields(ana.get(page).text, action)
    form = {**kept, "decision": "benign", "why": "A customer"}
    for _ in range(2):  # a double click
        assert "done=judged" in ana.send(action, form).headers["location"]
    for changed in ({"decision": "harvesting"}, {"why": "Another <b>reason</b>"}, {"decision": "withdrawn"}):
        answer = ana.send(action, {**form, **changed})
        assert (answer.status, "This form was sent before" in answer.text) == (409, True)
    elsewhere = f"/accounts/{digest_of(HARVESTER)}/verdict"
    assert "This form was sent before" in ana.send(elsewhere, form).text
    assert [one.decision for one in catalog.desk.verdicts.of(account)] == ["benign"]
    assert catalog.desk.verdicts.of(HARVESTER) == []
    anew = {**form, **hidden_fields(answer.text, action), "decision": "harvesting"}
    assert "done=judged" in ana.send(action, anew).headers["location"]
    assert "done=judged" in ana.send(action, form).headers["location"]  # it did count, and is history now
    assert [one.decision for one in catalog.desk.verdicts.of(account)] == ["harvesting", "benign"]


@pytest.mark.parametrize("number", ("", "x" * 32, "A" * 32, "0" * 31, "0" * 33, "0" * 32 + "\n"))
def test_an_exceptions_form_without_its_number_is_not_put_on_record(
    ana: Visitor, catalog: Catalog, number: str
) -> None:
    said = {"scope": "organisation", "subject": "org_3", "owner": "Sales", "reason": "Contract", "until": SOON}
    answer = ana.fill("/exceptions", "/exceptions", **said, exception_id=number)
    assert (answer.status, "send it again" in answer.text) == (400, True)
    assert catalog.desk.exceptions.find(subject="org_3") == []


# ---- as a process


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


def test_forms_that_need_a_file_that_is_broken_come_back_and_say_so(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    with make_lake(root, traffic(), rows_per_commit=40, watch=load_watch(read_settings(None))) as maker:
        keep(maker.catalog, [alert("acct_alerted")])
        for file in maker.catalog.live_files():
            (root / file.path).write_bytes(b"no Parquet <b>")
        with serving(root, STILLWATCH_SERVE_TOKEN=KEY) as served:
            ana = served.visitor("Ana", KEY)
            said = {"owner": "Sales", "reason": "A <b>contract</b>", "until": SOON}
            form = {**hidden_fields(ana.get("/exceptions").text, "/exceptions"), **said, "scope": "account"}
            for subject in ("acct_001", " acct_001 "):
                answer = ana.send("/exceptions", {**form, "subject": subject})
                assert (answer.status, "It is not on record. The lake cannot be read" in answer.text) == (400, True)
                assert "A &lt;b&gt;contract&lt;/b&gt;</textarea>" in answer.text
            page = ana.fill("/", "/accounts", account=HARVESTER).headers["location"]
            shown = ana.get(page)
            assert (shown.status, "The lake cannot be read at this moment" in shown.text) == (200, True)
            judged = ana.fill(page, f"{page}/verdict", decision="benign", why="Known")
            assert (judged.status, "Your verdict is not on record" in judged.text) == (503, True)
            assert "Known</textarea>" in judged.text
            ok = ana.fill("/exceptions", "/exceptions", **{**said, "scope": "account", "subject": "acct_alerted"})
            assert ok.status == 303, "its alert says that there is such an account"
        assert [one.subject for one in maker.catalog.desk.exceptions.find()] == ["acct_alerted"]
        assert maker.catalog.desk.verdicts.find() == []


def test_how_deliveries_stand_is_on_a_page(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    sinks = ("well", "soc <b>")
    with make_lake(root, traffic()) as maker:
        keep(maker.catalog, [alert("acct_1"), alert("acct_2", 1)])
        book = maker.catalog.desk.deliveries
        book.register(sinks, 1)
        book.route(1)
        for sink in sinks:
            lease = book.acquire(sink, "host:1", 60.0, 1)
            assert lease is not None
            queue = book.queue(lease, Wanted(), 10)
            standing = replace(lease.standing, cursor=queue.items[0].seq + 1)
            if sink == "well":
                book.mark(
                    lease, replace(standing, cursor=queue.end, sent=2, sent_at_us=1), Done(sent=queue.items), 1, 1
                )
                continue
            failing = replace(standing, failures=3, error="no <i>answer</i>", error_at_us=1, next_try_us=1)
            book.mark(lease, failing, Done(dead=[(queue.items[0], "it answered 400 <u>", 1)]), 1, 1)
        config = tmp_path / "stillwatch.toml"
        config.write_text("[sinks.late]\ntype = 'file'\npath = 'x'\n")
        with serving(root, "--config", str(config), STILLWATCH_SERVE_TOKEN=KEY) as served:
            page = served.visitor("Ana", KEY).get("/deliveries").text
    words = " ".join(re.sub("<[^>]*>", " ", page).split())
    assert "soc &lt;b&gt; failing not in the settings waiting 1" in words
    assert "no &lt;i&gt;answer&lt;/i&gt; 3 failures in a row" in words
    assert "it answered 400 &lt;u&gt;" in words
    assert "late new" in words
    assert "and never started" in words
    assert "well well not in the settings" in words
    for markup in ("<i>", "<u>", "soc <b>"):
        assert markup not in page


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
