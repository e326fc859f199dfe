"""`stillwatch account`: all that is known of one account, on the terminal, as JSON, or as a page of its own."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import sys
import threading
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from jobs import account_output, actors, listed, options
from jobs.catalogs import opened
from jobs.collecting import no_collecting
from jobs.out_files import replacing
from pipeline.config import Settings, read_settings
from pipeline.dossier import Dossier
from pipeline.errors import ConfigError
from pipeline.harmless import harmless
from pipeline.io.catalog import Catalog
from pipeline.io.clock import SystemClock
from pipeline.io.dossier import UnknownAccountError, Wanted, read_dossier
from pipeline.io.lake import Lake
from pipeline.io.views.session import Session

_HOW_TO_LIST: Final = (
    'Accounts of the lake: stillwatch sql "SELECT account_id, count(*) AS requests FROM access GROUP BY ALL '
    'ORDER BY requests DESC LIMIT 20"'
)


Form = Literal["text", "json"]
FormFlag = Annotated[Form, typer.Option("--format", metavar="text|json", help="What is printed.")]
PageFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write a page with plots that opens anywhere, without a network, instead."),
]
LookBack = Annotated[
    str,
    typer.Option(
        metavar="DURATION",
        help="How far back from its last request other accounts are looked for that share something, such as 7d. "
        "[default: 24h, or less where that is more than 3 million requests]",
    ),
]


def account(  # noqa: PLR0913, PLR0917  # one argument per flag is how Typer reads a command
    account_id: Annotated[
        str,
        typer.Argument(metavar="ACCOUNT", help="The account's id, as the log has it; after -- if it begins with -."),
    ],
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
    form: FormFlag = "text",
    html: PageFile = None,
    no_content: Annotated[
        bool, typer.Option("--no-content", help="Leave the texts of requests out; then nothing goes on record.")
    ] = False,
    look_back: LookBack = "",
    accounts: options.AccountsFeed = None,
    models: options.ModelsFolder = None,
    by: actors.By = "",
) -> None:
    """Show all that is known of one account: what it did, what Stillwatch makes of it, what people decided.

    Facts: who, totals, a timeline, what it came with, some of its requests, and which other accounts share a key, a
    network, a client or a payment.  Inference: alerts, scores with reasons in words, features beside those of honest
    accounts.  Decisions: verdicts and exceptions.  All times are UTC.

    Where texts of requests are shown, that is put on record with the name of who looked; where it cannot be, none is
    shown.

    Exit codes: 0 done; 2 nothing is known of this account, or a wrong setting; 4 the catalog does not answer; 5 a file
    of the lake is missing or broken.
    """
    settings = read_settings(
        config, lake=lake, catalog=catalog, accounts=None if accounts is None else str(accounts), models=models
    )
    if html is not None and form == "json":
        raise ConfigError("--html FILE writes a page: leave --format json out, or call it twice")
    wanted = Wanted(
        now_us=SystemClock().now_us(),
        by=actors.actor(by),
        texts=not no_content,
        feed=Path(settings.accounts).expanduser() if settings.accounts else None,
        models=Path(settings.models).expanduser() if settings.models else None,
        look_back_us=round(options.duration_s(look_back) * 1e6) if look_back else None,
    )
    with no_collecting():
        if html is not None:  # what draws takes as long to load as the lake to answer, and waits for nothing
            threading.Thread(target=importlib.import_module, args=("pipeline.dossier.plots",), daemon=True).start()
        _show(_read(settings, account_id, wanted), form, html)


def _read(settings: Settings, account_id: str, wanted: Wanted) -> Dossier:
    with opened(settings) as ledger, contextlib.closing(_session(settings)) as session:
        try:
            return read_dossier(session, ledger, account_id, wanted, aside=lambda: _session(settings))
        except UnknownAccountError as error:
            raise ConfigError(_unknown(error, settings)) from None


def _show(dossier: Dossier, form: Form, html: Path | None) -> None:
    if html is not None:
        from pipeline.dossier.page import page  # noqa: PLC0415  # takes a moment to load

        with replacing(html, "--html") as out:
            out.write(page(dossier))
        typer.echo(f"{html}: written; it opens without a network", err=True)
    elif form == "json":
        typer.echo(account_output.as_json(dossier), nl=False)
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else account_output.TEXT_CELLS
        listed.say(account_output.as_text(dossier, width))


def _session(settings: Settings) -> Session:
    return Session(Lake.open(settings.lake, create=False), Catalog.open(settings.catalog_url, create=False))


def _unknown(error: UnknownAccountError, settings: Settings) -> str:
    """What is wrong, and what to do."""
    said = f"nothing is known of an account {listed.shown_account(error.account_id)} in {harmless(settings.lake)}"
    if error.near:
        near = ", ".join(listed.shown_account(name) for name in error.near)
        return f"{said}; of the last day's accounts these are like it: {near}"
    return f"{said}: no request, score, alert, verdict or exception. {_HOW_TO_LIST}"
