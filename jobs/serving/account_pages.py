"""One account: all that is known of it, what people decided, and deciding about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from jobs.desk_copies import keep_if_there
from jobs.serving import dossiers, exception_form, words
from jobs.serving.guard import RefusedError, asked
from jobs.serving.serving import Serving, to
from pipeline.alerts import without_nul
from pipeline.decisions import DECISIONS, Verdict
from pipeline.errors import SchemaError
from pipeline.io.desk.alert_queue import QueuedAlert, QueueFilter
from pipeline.io.desk.judging import Refused, prepare
from pipeline.io.lake import Lake
from pipeline.judging import Judgement

ALERTS_MAX: Final = 50
SEQ_CHARS: Final = 18
"""Digits of a verdict's place among all."""

SENT_BEFORE: Final = (
    "This form was sent before, and the verdict that it gave then says something else; what stands here now is not on "
    "record. If you want it, send it again."
)
"""Of a page that the browser kept, which was filled in anew."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_HEX32: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Account:
    """Whose page it is.

    Attributes:
        account_id: in clear.
        sha256: of it, in hex, as the address has it: ids are long, odd, and nothing for logs and histories.
    """

    account_id: str
    sha256: str


def find(serving: Serving, request: Request) -> Response:
    """Lead on to the page of an account whose id was typed."""
    account_id = dossiers.as_meant(serving, asked(request).form.get("account", ""))
    if not account_id:
        raise RefusedError(400, "No id", "Give the id of an account.")
    return to(dossiers.address_of(serving, account_id))


def found(serving: Serving, request: Request) -> Account:
    """The account that an address names.

    Raises:
        RefusedError: nobody knows whose it is.
    """
    digest = request.path_params["sha256"]
    account_id = None
    if _SHA256.fullmatch(digest):
        account_id = serving.known.of(digest) or serving.catalog.desk.queue.account_of(digest)
    if account_id is None:
        raise RefusedError(
            404, "Whose page is this?", "Addresses hold a hash of an account's id, and of this one nothing is in "
            "the catalog: no alert, no verdict. Find the account by its id, above.",
        )  # fmt: skip
    return Account(account_id, digest)


def show(serving: Serving, request: Request) -> Response:
    """The account's page."""
    return again(serving, request, found(serving, request))


def show_texts(serving: Serving, request: Request) -> Response:
    """The account's page with the texts of its sample requests; that somebody looked is on record before they do."""
    serving.check_writable()
    return again(serving, request, found(serving, request), texts=True)


def judge_it(serving: Serving, request: Request) -> Response:
    """Put a verdict on record; one that somebody gave meanwhile is shown instead, and not written over."""
    serving.check_writable()
    account, known = found(serving, request), asked(request)
    form = known.form
    decision, verdict_id = form.get("decision", ""), form.get("verdict_id", "")
    over = form.get("over", "")
    if decision not in DECISIONS or not _HEX32.fullmatch(verdict_id) or not over.isdecimal() or len(over) > SEQ_CHARS:
        return again(serving, request, account, Filled(form, "Choose what you decide."), status=400)
    judgement = Judgement(
        account.account_id, decision, form.get("why", "").strip(), known.person, source="page",
        alert_id=form.get("alert_id", ""), verdict_id=verdict_id,
    )  # fmt: skip
    # Of an account that has alerts, the requests may be gone by retention: that is no reason not to judge it.
    has_alerts = bool(_alerts(serving, account, 1))
    try:
        with serving.reading():
            lake = Lake.open(serving.settings.lake, create=False)
            (prepared,) = prepare(lake, serving.catalog, [judgement], serving.clock.now_us(), anyway=has_alerts)
    except SchemaError as error:
        said = f"Your verdict is not on record. {dossiers.unreadable(error)}"
        return again(serving, request, account, Filled(form, said), status=503)
    if isinstance(prepared, Refused):
        return again(serving, request, account, Filled(form, prepared.why), status=400)
    book = serving.catalog.desk.verdicts
    stands = book.known([verdict_id]).get(verdict_id) or book.give_over(prepared, int(over))
    if stands.verdict_id == verdict_id and not _says(stands, judgement):
        return again(serving, request, account, Filled(form, SENT_BEFORE), status=409)
    if stands.verdict_id != verdict_id:
        said = (
            f"{stands.given_by} was quicker: the verdict above came while you were reading, and yours is not on "
            "record. Read it; if you still think so, send yours again."
        )
        return again(serving, request, account, Filled(form, said), status=409)
    keep_if_there(serving.settings, serving.catalog)
    done = "withdrawn" if decision == "withdrawn" else "judged"
    return to(f"/accounts/{account.sha256}", done, anchor="decisions")


def _says(verdict: Verdict, judgement: Judgement) -> bool:
    """Whether a verdict on record says what was sent."""
    said = (without_nul(judgement.account_id), judgement.decision, judgement.why, judgement.given_by)
    return (verdict.account_id, verdict.decision, verdict.why, verdict.given_by) == said


def add_exception(serving: Serving, request: Request) -> Response:
    """Put an exception on the account on record."""
    account, known = found(serving, request), asked(request)
    form = {**known.form, "scope": "account", "subject": account.account_id}
    wrong = exception_form.add(serving, form, known.person)
    if wrong:
        return again(serving, request, account, Filled(exception=form, exception_wrong=wrong), status=400)
    return to(f"/accounts/{account.sha256}", "excepted", anchor="decisions")


@dataclass(frozen=True, slots=True)
class Filled:
    """What the page shows again of a form that could not be dealt with.

    Attributes:
        verdict: fields of the verdict's form.
        verdict_wrong: what is wrong with it; empty: nothing.
        exception: fields of the exception's form.
        exception_wrong: the same of it.
    """

    verdict: Mapping[str, str] = field(default_factory=dict)
    verdict_wrong: str = ""
    exception: Mapping[str, str] = field(default_factory=dict)
    exception_wrong: str = ""


NOTHING: Final = Filled()


def again(
    serving: Serving,
    request: Request,
    account: Account,
    filled: Filled = NOTHING,
    *,
    texts: bool = False,
    status: int = 200,
) -> Response:
    """The account's page, with what was just filled in and what is wrong with it."""
    desk = serving.catalog.desk
    alerts = _alerts(serving, account, ALERTS_MAX + 1)
    newest = next((one.alert.alert_id for one in alerts if one.alert.state == "live"), "")
    return serving.page(
        request,
        "account.html",
        status,
        account=account,
        alerts=alerts[:ALERTS_MAX],
        alerts_more=len(alerts) > ALERTS_MAX,
        alert_id=filled.verdict.get("alert_id") or newest,
        verdicts=desk.verdicts.of(account.account_id),
        verdict={"decision": "", "why": "", **filled.verdict},
        verdict_wrong=filled.verdict_wrong,
        exceptions=[one for one in desk.exceptions.find(subject=account.account_id) if one.scope == "account"],
        exception={name: filled.exception.get(name, "") for name in exception_form.FIELDS},
        exception_wrong=filled.exception_wrong,
        usual_until=exception_form.usual_until(serving),
        rules=sorted(serving.rules),
        shown=dossiers.show(serving, account.account_id, asked(request).person, texts=texts),
        dossier_style=words.dossier_sheet()[0],
    )


def _alerts(serving: Serving, account: Account, limit: int) -> list[QueuedAlert]:
    """The account's alerts, the latest first."""
    all_of_it = QueueFilter(state="", decided="", suppressed="", account_sha256=account.sha256)
    return serving.catalog.desk.queue.page(all_of_it, "time", limit)
