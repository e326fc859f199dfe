"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.config import Settings
from tests import cli_page

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("infra/**/*.md")])
LINE_CHARS_MAX = 120
FILE_LINES_MAX = 500


def settings_table() -> str:
    """The table of docs/configuration.md, from the settings themselves."""
    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        lines.append(f"| `{name}` | `{default!r}` | {' '.join((field.description or '').split())} |")
    return "\n".join(lines)


def test_every_setting_stands_in_the_configuration_page() -> None:
    """With its default and its meaning, as the code has them; on failure the message holds the right table."""
    assert settings_table() in (ROOT / "docs/configuration.md").read_text(encoding="utf-8"), settings_table()


def test_the_page_of_commands_is_what_they_say() -> None:
    """`python -m tests.cli_page` writes it anew."""
    assert cli_page.PAGE.read_text(encoding="utf-8") == cli_page.page()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Relative links name files that exist."""
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_lines_of_the_changelog_fit() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > LINE_CHARS_MAX] == []


def test_files_hold_no_more_than_one_reads_at_once() -> None:
    """One that is longer holds two ideas."""
    files = [path for name in ("pipeline", "jobs", "tests") for path in (ROOT / name).rglob("*.py")]
    long = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in files}
    assert {name: lines for name, lines in long.items() if lines > FILE_LINES_MAX} == {}
