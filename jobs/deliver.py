"""`stillwatch deliver`: alerts leave the outbox for where people look."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from typing import Annotated, Final, Literal

import structlog
import typer

from jobs import actors, deliver_output, logs, options
from jobs.catalogs import opened
from jobs.deliver_run import Deliverer, check_sinks, undelivered
from jobs.run import Stop
from pipeline.alerts import ID_CHARS, Alert
from pipeline.config import Settings, read_settings
from pipeline.delivery.parcels import AlertParcel, Later, Refused
from pipeline.delivery.ports import Step
from pipeline.delivery.sinks import wanted_by
from pipeline.errors import ConfigError, RetryableError
from pipeline.io.catalog import Catalog, url_without_password
from pipeline.io.catalog_alerts import PAST, UNCLEAR, AlertFilter
from pipeline.io.clock import SystemClock
from pipeline.io.desk.audit_log import Act
from pipeline.io.sinks import open_sink

_DEAD_SHOWN: Final = 20

app = typer.Typer(
    help="Send alerts to files, topics, webhooks, Slack and PagerDuty: each at least once, in order.",
    add_completion=False,
    rich_markup_mode=None,
)
log = structlog.get_logger("deliver")


@app.callback(invoke_without_command=True)
def deliver(  # noqa: PLR0913, PLR0917  # Typer: a parameter is a flag
    ctx: typer.Context,
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    rules: options.Rules = None,
    once: Annotated[bool, typer.Option("--once", help="Try everything that waits, once, and stop.")] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(metavar="debug|info|warning|error", help="How much to log."),
    ] = "info",
) -> None:
    """Send alerts to files, topics, webhooks, Slack and PagerDuty: each at least once, in order.

    Runs until SIGTERM or Ctrl-C. Where to is said by tables [sinks.NAME] in the settings: docs/delivery.md. Each sink
    is on its own: one that is down or slow keeps no other waiting. Start a second one to take over when the first dies.
    A sink gets the alerts of the time from its first start on; the very first one, all that wait.

    Exit codes: 0 done; 1 a bug, with its traceback; 2 a wrong setting, or there is no catalog; 4 the catalog failed for
    too long, or, with --once, some alerts still wait.
    """
    if ctx.invoked_subcommand is not None:
        given = [name for name in ("lake", "catalog", "rules", "once") if ctx.params[name]]
        if given:
            raise ConfigError(f"--{given[0]} goes behind the command: stillwatch deliver {ctx.invoked_subcommand} …")
        return
    settings = read_settings(config, lake=lake, catalog=catalog, rules=rules)
    logs.configure(log_level)
    run(settings, once=once)


def run(settings: Settings, *, once: bool, step: Step = lambda _name: None) -> None:
    """Deliver.

    Args:
        settings: all settled.
        once: stop when all that waits was tried.
        step: see `SinkWorker`.

    Raises:
        typer.Exit: some alerts still wait (4).
    """
    check_sinks(settings)
    clock, stop = SystemClock(), Stop()
    stop.listen()
    try:
        with opened(settings) as ledger:
            deliverer = Deliverer(settings, ledger, clock, lambda: bool(stop.reason), step)
            log.info("started", sinks=sorted(settings.sinks), catalog=url_without_password(settings.catalog_url))
            deliverer.run(once=once)
            waiting = undelivered(settings, ledger, list(settings.sinks)) if once else 0
    finally:
        stop.unlisten()
    log.info("stopped", why=stop.reason or "done")
    if waiting:
        log.warning("some alerts still wait; `stillwatch deliver status` says why", alerts=waiting)
        raise typer.Exit(4)


@app.command()
def status(
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Say how each sink stands: what waits, what was sent, what failed and when it is tried again, what is dead.

    Changes nothing, and may run at any time.

    Exit codes: 0 done; 2 a wrong setting, or there is no catalog; 4 it does not answer.
    """
    settings = read_settings(config, lake=lake, catalog=catalog)
    with opened(settings) as ledger:
        found = ledger.desk.delivery_records.state(wanted_by(settings.sinks), _DEAD_SHOWN)
    known = {one.sink for one in found.sinks}
    new = sorted(set(settings.sinks) - known)
    if as_json:
        typer.echo(deliver_output.as_json(found, new))
    else:
        deliver_output.show(found, new, SystemClock().now_us())


@app.command()
def replay(  # noqa: PLR0913, PLR0917  # Typer: a parameter is a flag
    sink: Annotated[str, typer.Option("--sink", metavar="NAME", help="What this sink did not take.")] = "",
    alert: Annotated[
        str, typer.Option("--alert", metavar="ID", help="This alert or digest, by its id or enough of its beginning.")
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="All that is dead, of every sink.")] = False,
    unclear: Annotated[
        bool, typer.Option("--unclear", help="Alerts of which a rebuilt catalog does not know whether they were sent.")
    ] = False,
    past: Annotated[bool, typer.Option("--past", help="Alerts that a backfill raised.")] = False,
    by: actors.By = "",
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
) -> None:
    """Let dead alerts be sent again, by the deliverer that runs or by the next one.

    They keep their ids, so a receiver that has one of them knows it. With --unclear or --past it is about alerts that
    nobody sends unasked, and they go to every sink; --alert narrows it to one of them.

    Exit codes: 0 done; 2 there is nothing to send again, a wrong setting, or no catalog; 4 it does not answer.
    """
    held_back = [state for state, given in ((UNCLEAR, unclear), (PAST, past)) if given]
    if not (sink or alert or every or held_back):
        raise ConfigError("say what to send again: --sink NAME, --alert ID, --all, --unclear or --past")
    if held_back and sink:
        raise ConfigError("--unclear and --past are about every sink: leave --sink out")
    settings = read_settings(config, lake=lake, catalog=catalog)
    now_us = SystemClock().now_us()
    with opened(settings) as ledger:
        records = ledger.desk.delivery_records
        if held_back:
            count = records.release(held_back, _whole_id(ledger, alert) if alert else "", actors.actor(by), now_us)
        else:
            count = records.replay(sink, records.dead_id(alert) if alert else "", actors.actor(by), now_us)
    if not count:
        what = " or ".join(held_back) or "dead"
        raise ConfigError(f"nothing of that is {what}; `stillwatch deliver status` shows what there is")
    typer.echo(f"{count:,} to be sent again")


@app.command()
def forget(
    sink: Annotated[str, typer.Argument(metavar="SINK", help="Name of a sink that has left the settings.")],
    by: actors.By = "",
    apply: Annotated[
        bool, typer.Option("--apply/--dry-run", help="Do it; without this, only say what waits for it.")
    ] = False,
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
) -> None:
    """Forget a sink that has left the settings: what waits for it, and what is dead, is sent to it no more.

    What it has got stays on record. A sink of this name that comes back is a new one, and gets what is raised then.

    Exit codes: 0 done; 2 there is no such sink, it stands in the settings, somebody sends to it at this moment, or a
    wrong setting; 4 the catalog does not answer.
    """
    settings = read_settings(config, lake=lake, catalog=catalog)
    if sink in settings.sinks:
        raise ConfigError(
            f"sink {sink} stands in the settings: take its table [sinks.{sink}] out and stop who delivers by it first; "
            "else it is there again, as a new one, at the next start"
        )
    now_us = SystemClock().now_us()
    with opened(settings) as ledger:
        records = ledger.desk.delivery_records
        found = records.forget(sink, actors.actor(by), now_us) if apply else records.sink(sink)
    typer.echo(deliver_output.forgotten(found, applied=apply))


@app.command(name="test")
def try_sink(
    sink: Annotated[str, typer.Argument(metavar="SINK", help="Name of its table in the settings.")],
    by: actors.By = "",
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
) -> None:
    """Send a sink one alert that says that it is a test, at once and past all that waits.

    Exit codes: 0 the sink took it; 2 it refused it, or a wrong setting; 4 it did not answer, or failed.
    """
    settings = read_settings(config, lake=lake, catalog=catalog)
    if sink not in settings.sinks:
        known = ", ".join(settings.sinks) or "none; docs/delivery.md has an example of each kind"
        raise ConfigError(f"there is no sink {sink!r} in the settings; there are: {known}")
    clock = SystemClock()
    with contextlib.closing(open_sink(sink, settings.sinks[sink], settings, clock)) as ready:
        (outcome,) = ready.send([AlertParcel(_test_alert(clock.now_us()), test=True)])
    with opened(settings) as ledger:
        details = {"outcome": type(outcome).__name__.lower()}
        ledger.desk.audit.record(Act("delivery.tested", actors.actor(by), "sink", sink, details), clock.now_us())
    if isinstance(outcome, Refused):
        raise ConfigError(f"sink {sink} refused the test: {outcome.reason}")
    if isinstance(outcome, Later):
        raise RetryableError(f"sink {sink} did not take the test: {outcome.reason}")
    typer.echo(f"sink {sink} took the test")


def _test_alert(now_us: int) -> Alert:
    return Alert(
        alert_id=hashlib.sha256(uuid.uuid4().bytes).hexdigest()[:ID_CHARS], rule="stillwatch_test", rule_version=1,
        state="live", severity="informational", entity_type="account", entity_id="nobody", window_start_us=now_us,
        raised_at_us=now_us, first_seen_us=now_us, topic="none", partition=0, offset=0, exchanges=0, output_tokens=0,
        risk=None, reasons=("Somebody tries whether this sink works: there is nothing to do.",), features={},
        versions={},
    )  # fmt: skip


def _whole_id(ledger: Catalog, prefix: str) -> str:
    found = ledger.alerts(AlertFilter(id_prefix=prefix.strip().lower(), limit=2))
    if len(found) != 1:
        count = "several alerts' ids begin" if found else "no alert's id begins"
        raise ConfigError(f"--alert {prefix[:40]!r}: {count} so")
    return found[0].alert_id
