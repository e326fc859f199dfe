"""`stillwatch verdict`: judge accounts, one at a time, from a file, or from a topic."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from jobs import actors, listed, logs, options, verdict_output
from jobs.catalogs import opened
from jobs.default_group import defaulting_to
from jobs.listed import say
from jobs.moments import moment_us
from pipeline.config import read_settings
from pipeline.io.clock import SystemClock
from pipeline.io.desk import copies
from pipeline.io.desk.verdict_book import standing_in
from pipeline.judging import Judgement, shown

Anyway = Annotated[
    bool,
    typer.Option(
        "--anyway",
        help="Also of accounts that were never seen, and where a file is broken; teaches the models nothing.",
    ),
]

app = typer.Typer(
    cls=defaulting_to("give"),
    help="Judge accounts: give, list, change and withdraw verdicts, from the command line, a file or a topic.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command()
def give(  # noqa: PLR0913, PLR0917  # one argument per flag is how Typer reads a command
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's id, as the log has it.")],
    decision: Annotated[
        Literal["harvesting", "benign", "unsure", "withdrawn"],
        typer.Argument(metavar="harvesting|benign|unsure|withdrawn", help="`withdrawn` takes the last verdict back."),
    ],
    why: Annotated[str, typer.Option("--why", metavar="WORDS", help="The reason, for whoever looks later.")],
    by: actors.By = "",
    alert: Annotated[str, typer.Option(metavar="ID", help="The alert that it answers, or enough of its id.")] = "",
    at: Annotated[
        str,
        typer.Option(
            metavar="WHEN",
            help="Moment of event time that it speaks of: 2026-03-01, 2026-03-01T12:00Z.  [default: the alert's, else "
            "the account's newest live alert's, else the newest that is stored]",
        ),
    ] = "",
    anyway: Anyway = False,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
) -> None:
    """Judge an account; `stillwatch verdict ACCOUNT harvesting --why …` is enough.

    The verdict is joined to the account's features as they were stored at the moment that it speaks of, and stands
    until the next one of the account.  Nothing is deleted: `stillwatch verdict list ACCOUNT --history` shows all.

    Exit codes: 0 done; 2 it cannot be given, and why; 4 the catalog does not answer; 5 a file of the lake is missing or
    broken.
    """
    from pipeline.io.desk.judging import judge  # noqa: PLC0415  # DuckDB takes long to import
    from pipeline.io.lake import Lake  # noqa: PLC0415

    judgement = Judgement(
        account, decision, why.strip(), actors.actor(by), alert_id=alert,
        about_us=_at_us(at) if at else None,
    )  # fmt: skip
    settings = read_settings(config, lake=lake, catalog=catalog)
    logs.configure("warning")
    storage = Lake.open(settings.lake, create=False)
    with opened(settings) as ledger:
        verdict = judge(storage, ledger, judgement, SystemClock().now_us(), anyway=anyway)
        before = ledger.desk.verdicts.replaced_by(verdict)
    say(verdict_output.given(verdict, before))


@app.command(name="list")
def list_verdicts(  # noqa: PLR0913, PLR0917
    account: Annotated[str, typer.Argument(metavar="[ACCOUNT]", help="Only this account's.")] = "",
    history: Annotated[
        bool, typer.Option("--history", help="Also those that were changed or withdrawn since, and by what.")
    ] = False,
    decision: Annotated[
        Literal["harvesting", "benign", "unsure", "withdrawn"] | None,
        typer.Option(metavar="harvesting|benign|unsure|withdrawn", help="Only those that say so."),
    ] = None,
    limit: listed.LimitFlag = None,
    form: listed.FormFlag = "table",
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
) -> None:
    """List the verdicts that stand, the latest first; with --history all that were ever given.

    Exit codes: 0 done, also if there are none; 2 a wrong setting, or there is no catalog; 4 it does not answer.
    """
    settings = read_settings(config, lake=lake, catalog=catalog)
    with opened(settings) as ledger:
        every = ledger.desk.verdicts.find(account_id=account)
    found = every if history else standing_in(every)
    if decision is not None:
        found = [one for one in found if one.decision == decision]
    shown = found[: listed.limit_of(limit, form) or None]
    say(verdict_output.as_list(shown, form, more=len(found) > len(shown)))


@app.command()
def load(  # noqa: PLR0913, PLR0917
    csv: Annotated[
        str,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="Columns account_id,decision,why and maybe by,at,alert_id; -: standard input.",
        ),
    ],
    by: actors.By = "",
    anyway: Anyway = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all of it, and give none.")] = False,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
) -> None:
    """Give the verdicts of a file, all of them or none.

    A line that was given before, in this file or another, is passed over, so a file may be given again, also when it
    has grown.  The first line names the columns.

    Exit codes: 0 done; 2 the file is wrong: each wrong line is named, and nothing was given; 4 the catalog does not
    answer; 5 a file of the lake is missing or broken.
    """
    from jobs.verdict_load import checked, read_file  # noqa: PLC0415  # DuckDB takes long to import
    from pipeline.io.lake import Lake  # noqa: PLC0415

    settings = read_settings(config, lake=lake, catalog=catalog)
    logs.configure("warning")
    storage = Lake.open(settings.lake, create=False)
    lines = read_file(csv, actors.actor(by))
    with opened(settings) as ledger:
        verdicts = checked(storage, ledger, csv, lines, anyway=anyway)
        there = len(ledger.desk.verdicts.known([verdict.verdict_id for verdict in verdicts]))
        if not dry_run:
            ledger.desk.verdicts.give_all(verdicts)
            copies.keep(storage.root, ledger)
    say(verdict_output.loaded(verdicts, there, dry_run=dry_run))


@app.command()
def listen(  # noqa: PLR0913, PLR0917
    topic: Annotated[str, typer.Option("--topic", metavar="T", help="Topic that verdicts come by, as JSON objects.")],
    bootstrap: options.Bootstrap = None,
    kafka: options.KafkaSettings = None,
    once: Annotated[
        bool, typer.Option("--once", help="Stop when all is read that the topic held at the start.")
    ] = False,
    anyway: Anyway = False,
    skip_lost: Annotated[
        bool, typer.Option("--skip-lost", help="Go on where Kafka has lost verdicts; the audit log tells which.")
    ] = False,
    by: actors.By = "",
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(metavar="debug|info|warning|error", help="How much to log."),
    ] = "info",
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
) -> None:
    """Take verdicts from a Kafka topic, each once, for as long as it is let.

    A record is a JSON object of texts: account_id, decision, why, by, and if wanted at, alert_id, verdict_id.  How far
    the topic is read is kept in the catalog with the verdicts.  A record that is no verdict is logged, and recorded:
    `stillwatch audit --action verdict.refused` says where it lies.  Stops on SIGTERM or Ctrl-C.

    Exit codes: 0 done; 2 a wrong setting; 3 Kafka lost verdicts that were not read yet; 4 broker or catalog failed for
    too long; 5 a file of the lake is missing or broken.
    """
    from jobs import verdict_listen  # noqa: PLC0415  # Kafka takes long to import
    from pipeline.io.desk.verdict_topic import Wish  # noqa: PLC0415

    settings = read_settings(
        config, lake=lake, catalog=catalog, topic=topic, bootstrap=bootstrap, kafka=options.key_values(kafka)
    )
    logs.configure(log_level)
    heard = verdict_listen.job(settings, Wish(anyway, skip_lost, actors.actor(by)), once=once)
    say(verdict_output.heard(heard.given, heard.refused, heard.without_row))


def _at_us(said: str) -> int:
    return moment_us(said, f"--at {shown(said)}: expected a day (2026-03-01) or a time (2026-03-01T12:00Z)")
