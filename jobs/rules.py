"""`stillwatch rules`: the rules that alerts come of, and whether they do what they say."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from jobs import listed, options, rules_output
from pipeline.config import Settings, read_settings
from pipeline.counted import counted
from pipeline.errors import ConfigError
from pipeline.features import FEATURES, NAMES
from pipeline.harmless import harmless
from pipeline.io.catalog import Catalog
from pipeline.io.desk.worth import Worth, worth_of_rules
from pipeline.rules import Rule, read_rule_files
from pipeline.rules.advice import missing_examples, warnings_of
from pipeline.rules.condition import meant
from pipeline.rules.sequence import feed_of
from pipeline.trials import events_of, trials_of
from pipeline.watch import load_models, load_rules, rule_files_of, watch_with

_FAMILY_OF_FEED = "account"

Format = Annotated[Literal["text", "json"], typer.Option("--format", metavar="text|json", help="What is printed.")]

app = typer.Typer(
    help="List the alert rules, show one, check rule files, and test each rule on its sequences of events.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command(name="list")
def list_rules(
    rules: options.Rules = None,
    config: options.ConfigFile = None,
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    form: Format = "text",
) -> None:
    """List the rules: name, version, state, severity, for how long each is silent, owner, sequences and title.

    Where there is a catalog, also what their alerts were worth by the verdicts that stand: precision is the share of
    harvesters among the alerted accounts that were judged to be one or not.

    Exit codes: 0 done; 2 a setting or rule file is wrong; 4 the catalog does not answer; 5 it is of another version.
    """
    settings = read_settings(config, rules=rules, lake=lake, catalog=catalog)
    found, worth = load_rules(settings), _worth(settings)
    if form == "json":
        listed.say(rules_output.list_as_json(found, worth))
    else:
        listed.say(rules_output.as_table(found, listed.width()) + rules_output.worth_as_text(found, worth))


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="RULE", help="The rule's name.")],
    rules: options.Rules = None,
    config: options.ConfigFile = None,
    form: Format = "text",
) -> None:
    """Show all of one rule: its condition with the numbers that constants stand for, what to do, what it misses.

    Exit codes: 0 done; 2 there is no such rule, or a setting or rule file is wrong.
    """
    (rule,) = _named(load_rules(read_settings(config, rules=rules)), [name])
    width = listed.width() or rules_output.TEXT_CELLS
    listed.say(rules_output.rule_as_json(rule) if form == "json" else rules_output.as_text(rule, width))


@app.command()
def check(rules: options.Rules = None, config: options.ConfigFile = None, form: Format = "text") -> None:
    """Check rule files: everything that is wrong, each with file, line and how to mend it, and what may be unwise.

    Each rule needs a sequence of events that it must fire on, and one that it must not; `stillwatch run` takes rules
    without.  Sequences are made and decoded, and not yet tried: `stillwatch rules test` does that.

    Exit codes: 0 nothing is wrong (there may be warnings); 2 something is, or a setting is wrong.
    """
    settings = read_settings(config, rules=rules)
    found = read_rule_files(rule_files_of(settings), NAMES)
    problems = [*found.problems, *missing_examples(found.rules), *_broken_examples(found.rules)]
    of_feed = {feature.name for feature in FEATURES if feature.family == _FAMILY_OF_FEED}
    warnings = list(warnings_of(found.rules, of_feed, has_feed=bool(settings.accounts)))
    listed.say(
        rules_output.check_as_json(found.rules, problems, warnings)
        if form == "json"
        else rules_output.check_as_text(found.rules, problems, warnings)
    )
    if problems:
        raise ConfigError(f"rules: {counted(len(problems), 'problem')} to mend; the lines above say where")


@app.command(name="test")
def try_rules(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[RULE]...", help="Only these rules.  [default: all]")
    ] = None,
    rules: options.Rules = None,
    models: options.ModelsFolder = None,
    config: options.ConfigFile = None,
    form: Format = "text",
) -> None:
    """Send each rule's sequences of events through the engine of the live job, and see whether it fires where it must.

    The events are decoded, and features, models and all rules run as in `stillwatch run`, each sequence from nothing.
    Says after how many exchanges a rule fired; where it did not, what came nearest, comparison by comparison.

    Exit codes: 0 all rules did what they must; 2 one did not, or has no sequences, or a setting or rule file is wrong.
    """
    settings = read_settings(config, rules=rules, models=models)
    running = load_rules(settings)
    chosen = _named(running, names) if names else running
    untested = list(missing_examples(chosen))
    trained = load_models(settings)
    trials = list(trials_of(chosen, lambda feed: watch_with(running, trained, feed)))
    listed.say(
        rules_output.trials_as_json(trials, untested)
        if form == "json"
        else rules_output.trials_as_text(trials, untested)
    )
    failed = sum(not trial.as_expected for trial in trials)
    if failed:
        raise ConfigError(f"rules: in {failed} of {counted(len(trials), 'sequence')} the rule did not do what it must")
    if untested:
        raise ConfigError(f"rules: {counted(len(untested), 'rule')} without the sequences that each needs")


def _worth(settings: Settings) -> dict[str, Worth]:
    """What the rules' alerts were worth; nothing where there is no catalog."""
    ledger = Catalog.open_if_made(settings.catalog_url)
    if ledger is None:
        return {}
    with contextlib.closing(ledger):
        return worth_of_rules(ledger)


def _named(rules: Sequence[Rule], names: Sequence[str]) -> list[Rule]:
    """The rules of these names.

    Raises:
        ConfigError: there is none of a name.
    """
    known = {rule.name: rule for rule in rules}
    for name in names:
        if name not in known:
            hint = meant(name, known)
            rest = hint if "did you mean" in hint else "; `stillwatch rules list` shows them"
            raise ConfigError(f"no rule is named {harmless(name[:80])}{rest}")
    return [known[name] for name in dict.fromkeys(names)]


def _broken_examples(rules: Sequence[Rule]) -> list[str]:
    """Sequences that are well written and cannot be made."""
    problems = []
    for rule in rules:
        for example in rule.examples:
            try:
                feed_of(example)
                events_of(example)
            except ConfigError as error:
                problems.append(str(error))
    return problems
