"""`stillwatch backtest`: what a configuration would have scored and alerted on past traffic."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import orjson
import polars as pl
import pyarrow as pa
import typer
from rich.console import Console
from rich.progress import Progress

from jobs import options
from jobs.consoles import progress_columns
from pipeline.analysis import Analysis
from pipeline.backtesting import replaying
from pipeline.backtesting.comparison import compared
from pipeline.backtesting.judging import Judged, Judges
from pipeline.backtesting.labels import decided, matched
from pipeline.backtesting.metrics import short_percent
from pipeline.backtesting.page import page
from pipeline.backtesting.replaying import Replayed, replay
from pipeline.backtesting.report import Found, plots_of, report_of
from pipeline.backtesting.tables import account_rows
from pipeline.batch import Partition
from pipeline.config import Settings, read_settings
from pipeline.counted import counted
from pipeline.decisions import Verdict
from pipeline.errors import ConfigError
from pipeline.harmless import harmless
from pipeline.io.backtest_folder import PAGE, REPORT, BacktestFolder, read_report
from pipeline.io.catalog import Catalog
from pipeline.io.digests import sha256_of_file
from pipeline.io.event_files import Events, find_files, read_files, read_lake
from pipeline.io.labels_file import read_labels
from pipeline.io.views.session import Session
from pipeline.rules import Rule
from pipeline.watch import load_rules, load_watch
from pipeline.windows import WINDOWS_SCHEMA

LAKE = "lake"


@dataclass(frozen=True, slots=True)
class Engine:
    """What scores.

    Attributes:
        analysis_of: makes the analysis of a partition.
        windows: schema of its scores.
        learned: SHA-256 of files that the models learned.
        rules: that run.
    """

    analysis_of: Callable[[Partition], Judges]
    windows: pa.Schema
    learned: frozenset[str] = frozenset()
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be done, as the command line said; see `backtest`."""

    events: str
    out: Path
    settings: Settings
    files: tuple[Path, ...]
    """Whatever else is read: accounts, configuration, labels."""

    labels: pl.DataFrame | None
    partitions: int
    rejects_max: float
    compare: Path | None
    verdicts: bool = True
    """Whether they count in a lake's scores from where they did in the live job."""


def backtest(  # noqa: PLR0913  # the flags of a command
    *,
    events: Annotated[
        str, typer.Option(metavar="FILE|GLOB|lake", help="NDJSON (.gz, .zst), Parquet, a lake's folder, or `lake`.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the results; one of an earlier run is replaced.")
    ],
    accounts: options.AccountsFeed = None,
    labels: Annotated[Path | None, typer.Option(metavar="FILE", help="CSV that says which accounts harvest.")] = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Of the topic; as many as it has give the live job's scores.")
    ] = None,
    compare: Annotated[Path | None, typer.Option(metavar="DIR", help="An earlier run to set this one beside.")] = None,
    verdicts: Annotated[
        bool, typer.Option(help="Whether verdicts count in a lake's scores from where they did in the live job.")
    ] = True,
    max_rejects: Annotated[
        float, typer.Option(metavar="SHARE", min=0, max=1, help="Stop if more of the records are no events.")
    ] = 0.01,
    rules: options.Rules = None,
    models: options.ModelsFolder = None,
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
) -> None:
    """Replay past traffic through a configuration, and report what it would have alerted.

    The very stages of the live job score the events, so the same events in the same partitions get the same scores.
    DIR then holds scores.parquet, alerts.parquet, accounts.parquet, report.json with every figure, and report.html with
    plots, which opens anywhere.  With labels it says how well harvesting is told from use.

    Exit codes: 0 done; 2 a file, flag or setting is wrong; 4 the disk or the catalog fails.
    """
    settings = read_settings(
        config,
        lake=lake,
        catalog=catalog,
        rules=rules,
        models=models,
        accounts=None if accounts is None else str(accounts),
    )
    if not _is_lake(events):
        find_files(events)  # what is missing is said before models are loaded
    request = Request(
        events=events,
        out=out,
        settings=settings,
        files=tuple(path for path in (accounts, config, labels) if path is not None),
        labels=None if labels is None else read_labels(labels),
        partitions=_partitions(events, partitions),
        rejects_max=max_rejects,
        compare=compare,
        verdicts=verdicts,
    )
    began = time.monotonic()
    report = run(request, engine_of(settings))
    _say(report, request, time.monotonic() - began)


def engine_of(settings: Settings) -> Engine:
    """The analysis of the live job."""
    watch = load_watch(settings)
    return Engine(lambda partition: Analysis(partition, watch), WINDOWS_SCHEMA, watch.learned, load_rules(settings))


def run(request: Request, engine: Engine) -> dict[str, Any]:
    """Do what is asked, and give the report."""
    earlier = None if request.compare is None else read_report(request.compare)
    with ExitStack() as stack:
        events = _events(request, stack)
        folder = stack.enter_context(BacktestFolder(request.out, engine.windows))
        with _progress(events.size) as watch:
            replayed = replay(
                events.chunks, _judged(request, engine), folder.add, rejects_max=request.rejects_max, watch=watch
            )
        scores, alerts = folder.frames()
        of_accounts = account_rows(replayed.activity.accounts(), scores, alerts)
        folder.write_accounts(of_accounts)
        labels = None if request.labels is None else matched(request.labels, of_accounts["account_id"])
        verdicts = decided(_verdicts(request), of_accounts["account_id"])
        found = Found(replayed, scores, alerts.collect(), of_accounts, labels, engine.rules, verdicts)
        files = [_hashed(path) for path in (*events.files, *request.files)]
        learned = [file["name"] for file in files if file["sha256"] in engine.learned]
        given = {"events": list(events.names), "files": files, "learned": learned}
        report = report_of(found, given, version("stillwatch"))
        if earlier is not None:
            before, accounts_before, alerts_before = earlier
            pairs = (accounts_before, of_accounts), (alerts_before, found.alerts)
            report["comparison"] = compared(before, report, *pairs)
        folder.write(PAGE, page(report, plots_of(found, report)))
        folder.write(REPORT, orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        folder.publish()
    return report


def _is_lake(events: str) -> bool:
    return events == LAKE or Path(events).is_dir()


def _partitions(events: str, given: int | None) -> int:
    if given is not None and _is_lake(events):
        raise ConfigError("--partitions is for files: the events of a lake stay in the partitions that they came by")
    return given or 1


def _judged(request: Request, engine: Engine) -> Callable[[Partition], replaying.Analysis]:
    """Analyses that take the lake's verdicts in where the live job did."""
    if not (request.verdicts and _is_lake(request.events)):
        return engine.analysis_of
    verdicts = _verdicts(request)
    if not verdicts:
        return engine.analysis_of
    with closing(Catalog.open(_lake_settings(request).catalog_url, create=False)) as catalog:
        marks = {partition: catalog.verdict_marks(partition) for partition in catalog.offsets()}
    return lambda partition: Judged(engine.analysis_of(partition), marks.get(partition, ()), verdicts)


def _verdicts(request: Request) -> list[Verdict]:
    """The lake's verdicts in their order; files have none."""
    if not _is_lake(request.events):
        return []
    with closing(Catalog.open(_lake_settings(request).catalog_url, create=False)) as catalog:
        return sorted(catalog.desk.verdicts.find(), key=lambda verdict: verdict.seq)


def _lake_settings(request: Request) -> Settings:
    given = request.settings
    return given if request.events == LAKE else given.model_copy(update={"lake": request.events})


def _events(request: Request, stack: ExitStack) -> Events:
    settings = request.settings
    if _is_lake(request.events):
        settings = _lake_settings(request)
        return read_lake(stack.enter_context(Session.open(settings)), settings.lake)
    return read_files(find_files(request.events), settings.topic, request.partitions)


def _hashed(path: Path) -> dict[str, str]:
    return {"name": str(path), "sha256": sha256_of_file(path)}


@contextmanager
def _progress(size: int) -> Iterator[Callable[[int, Replayed], None]]:
    if not sys.stderr.isatty():
        yield lambda _done, _so_far: None
        return
    began = time.monotonic()
    with Progress(*progress_columns("backtest"), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("backtest", total=size, said="")

        def watch(done: int, so_far: Replayed) -> None:
            rate = so_far.activity.events / max(time.monotonic() - began, 1e-3)
            said = f"{counted(so_far.activity.events, 'event')}, {rate:,.0f}/s, {counted(so_far.alerts, 'alert')}"
            progress.update(task, completed=done, said=said)

        yield watch


def rule_lines(rules: Sequence[dict[str, Any]]) -> list[str]:
    """What each rule adds to the others and costs, as a table."""
    head = ["rule", "state", "alerts", "accounts", "added", "suppressed", "first after"]
    sources = list(rules[0]["told"]) if rules else []
    for who in sources:
        head += [f"right by {who}", "wrong", "of all benign", "added wrong"]
    rows = [head]
    for rule in rules:
        first = rule["exchanges_before_first_alert"]["median"]
        counts = (*(rule[name] for name in ("alerts", "accounts", "added", "suppressed")), first)
        row = [rule["rule"], rule["state"], *("–" if count is None else f"{count:,.0f}" for count in counts)]
        for who in sources:
            told = rule["told"][who]
            wrong = told["benign"]["share"]
            row += [
                f"{told['attack']['count']:,}", f"{told['benign']['count']:,}",
                "–" if wrong is None else f"{wrong:.2%}", f"{told['added_benign']['count']:,}",
            ]  # fmt: skip
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    words = 2  # columns of words; numbers stand to the right
    return [
        "  ".join(
            cell.ljust(width) if at < words else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (rows if rules else [])
    ]


def _say(report: dict[str, Any], request: Request, seconds: float) -> None:
    log, scores, alerts, detection = report["log"], report["scores"], report["alerts"], report["detection"]
    for line in report["warnings"]:
        typer.echo(f"note: {harmless(line)}", err=True)
    rate = f"{seconds:.1f} s ({log['events'] / seconds:,.0f}/s)"
    typer.echo(
        f"{counted(log['events'], 'event')} of {counted(log['accounts'], 'account')} in {rate}; "
        f"{counted(scores['accounts_scored'], 'account')} scored"
    )
    typer.echo(
        f"{counted(alerts['live'], 'alert')} on {counted(alerts['accounts_alerted'], 'account')} by live rules; "
        f"{alerts['shadow']:,} by shadow rules"
    )
    for line in rule_lines(report["rules"]):
        typer.echo(harmless(line))
    if detection is not None and detection["auc"] is not None:
        typer.echo(f"AUC {detection['auc']:.4f}, average precision {detection['average_precision']:.4f}")
        for at in detection["thresholds"]:
            typer.echo(
                f"{at['attack']['share']:.1%} of attack accounts above the threshold ({at['threshold']:.4g}) "
                f"that {short_percent(at['benign_share'])} of benign ones exceed"
            )
    if request.compare is not None:
        typer.echo(f"beside {request.compare}: see the page's last part")
    typer.echo(f"results: {request.out / PAGE}")
