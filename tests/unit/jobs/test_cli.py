"""The command line as a whole: what it lists, and what it imports to do so."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import COMMANDS, app

ROOT = Path(__file__).parents[3]
SLOW = {"duckdb", "jinja2", "kafka", "matplotlib", "numpy", "polars", "prompt_toolkit", "pyarrow", "pydantic", "rich", "river", "scipy", "sqlalchemy", "structlog"}  # fmt: skip
FOR_RUN = {"kafka", "numpy", "pyarrow", "pydantic", "rich", "sqlalchemy", "structlog"}
FOR_THE_CATALOG = {"numpy", "pyarrow", "pydantic", "rich", "sqlalchemy"}


def imported_by(*arguments: str) -> set[str]:
    """Which of the packages that take long to import a command line imports."""
    program = (
        "import sys\nfrom jobs.cli import run\ntry:\n    run()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return SLOW & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("flag", ("--help", "--version"))
def test_help_and_version_import_nothing_that_takes_long(flag: str) -> None:
    assert imported_by(flag) == set()


def test_the_job_imports_only_what_it_works_with() -> None:
    assert imported_by("run", "--help") == FOR_RUN


def test_a_command_is_imported_alone() -> None:
    assert "kafka" not in imported_by("sql", "--help")
    assert "duckdb" not in imported_by("simulate", "--help")


@pytest.mark.parametrize(
    ("command", "more"),
    (
        ("account", {"duckdb"}),
        ("sql", {"duckdb"}),
        ("alerts list", {"structlog"}),
        ("verdict list", {"structlog"}),
        ("exception list", {"structlog"}),
        ("audit list", set()),
    ),
)
def test_what_people_wait_for_starts_without_what_it_does_not_need(command: str, more: set[str]) -> None:
    """Each of these packages takes a tenth of a second and more, the whole start half of one."""
    assert imported_by(*command.split(), "--help") == FOR_THE_CATALOG | more


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_listed_with_the_first_line_of_its_own_help(name: str) -> None:
    module = importlib.import_module(f"jobs.{name}")
    own = module.app.info.help if hasattr(module, "app") else inspect.getdoc(getattr(module, name))
    assert own.splitlines()[0] == COMMANDS[name]
    listed = CliRunner().invoke(app, ["--help"], terminal_width=200).output
    assert f"\n  {name} " in listed
    shown = CliRunner().invoke(app, [name, "--help"], terminal_width=200)
    assert shown.exit_code == 0
    assert f"Usage: stillwatch {name} " in shown.output
    assert COMMANDS[name] in shown.output
    assert "completion" not in shown.output


def test_a_mistyped_command_is_told_the_right_one() -> None:
    result = CliRunner().invoke(app, ["simulat"])
    assert result.exit_code == 2
    assert "No such command 'simulat'. Did you mean 'simulate'?" in result.output


def test_arguments_reach_the_command_itself() -> None:
    result = CliRunner().invoke(app, ["sql", "--max-rows", "-1"])
    assert result.exit_code == 2
    assert "Invalid value for '--max-rows'" in result.output
    result = CliRunner().invoke(app, ["maintain", "verify", "--nope"])
    assert result.exit_code == 2
    assert "No such option" in result.output
