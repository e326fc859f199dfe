"""`stillwatch serve` as a process: what people decide, two of them at once, and the record of it."""

from __future__ import annotations

import contextlib
import signal
import threading
from pathlib import Path

import pytest

from pipeline.config import CATALOG_FILE, read_settings
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.desk.audit_log import AuditFilter
from pipeline.watch import load_watch
from tests.integration.serving.site import BLANKS, KEY, LONG, SOON, SPACED, WITH_NUL, alert_id, digest_of
from tests.lake_maker import make_lake
from tests.triage import Served, Visitor, hidden_fields, serving
from tests.unit.io.dossier_lake import HARVESTER, traffic
from tests.unit.jobs.test_alerts import alert, keep


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
    assert f'<span class="holder"><bdi>{holder}</bdi></span>' in other.get("/").text


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


def test_an_exception_on_an_organisation_of_an_accounts_name_is_not_the_accounts(ana: Visitor) -> None:
    page = ana.fill("/", "/accounts", account="acct_010").headers["location"]
    said = {"scope": "organisation", "subject": "acct_010", "owner": "Sales", "reason": "Of another", "until": SOON}
    assert ana.fill("/exceptions", "/exceptions", **said).status == 303
    assert "Of another" in ana.get("/exceptions").text
    assert "Of another" not in ana.get(page).text


def test_spaces_that_an_accounts_id_has_are_kept(ana: Visitor, catalog: Catalog) -> None:
    said = {"scope": "account", "subject": SPACED, "owner": "Sales", "reason": "Pasted", "until": SOON}
    assert ana.fill("/exceptions", "/exceptions", **said).status == 303
    assert [one.subject for one in catalog.desk.exceptions.find(subject=SPACED)] == [SPACED]


@pytest.mark.parametrize(
    ("typed", "account", "shown"),
    ((BLANKS, BLANKS, "&#39;   &#39;"), (WITH_NUL.replace("\0", "\u2400"), WITH_NUL, "nul\u2400id")),
)
def test_an_id_of_blanks_and_one_with_a_nul_are_found_shown_judged_and_allowed(
    ana: Visitor, catalog: Catalog, typed: str, account: str, shown: str
) -> None:
    page = ana.fill("/", "/accounts", account=typed).headers["location"]
    text = ana.get(page).text
    assert f'<h1><bdi class="id">{shown}</bdi></h1>' in text
    assert "<b>1</b><span>requests in the lake</span>" in text
    assert ana.fill(page, f"{page}/verdict", decision="benign", why="A test of ours").status == 303
    assert [one.decision for one in catalog.desk.verdicts.of(account)] == ["benign"]
    said = {"owner": "Sales", "reason": "Contract", "until": SOON}
    assert ana.fill(page, f"{page}/exception", **said).status == 303
    assert [one.reason for one in catalog.desk.exceptions.find(subject=account)] == ["Contract"]


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
