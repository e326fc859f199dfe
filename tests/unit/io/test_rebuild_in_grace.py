"""A catalog that is lost before the grace period of rewrites is over: what they did holds, or it is said that it does not."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.io.catalog import AlertFilter, Catalog, sqlite_url
from pipeline.io.rebuild import plan_of, rebuild
from pipeline.io.rewriting import erasure, writing
from pipeline.io.rewriting.compaction import Compacted, Compactor
from pipeline.io.rewriting.erasure import Eraser
from pipeline.io.rewriting.ledger import SWAPPED, RewriteLedger
from pipeline.io.rewriting.settling import tidy
from pipeline.io.rewriting.writing import Limits
from tests.lake_maker import LakeMaker
from tests.rewrites import (
    ERASED,
    NOW_US,
    TABLE_NAMES,
    StandingClock,
    assert_sound,
    compact_all,
    content_by_glob,
    content_of,
    events_of,
    many_commits,
    payloads,
)

GRACE_S = 3600.0
LATER_US = NOW_US + int(2 * GRACE_S * 1e6)


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[LakeMaker]:
    with many_commits(tmp_path / "lake", commits=4) as maker:
        maker.append(payloads(4), snapshot=True)
        yield maker


def erase(maker: LakeMaker, account: str = ERASED, step: str = "") -> None:
    """Erase an account with a grace period; dies after a step, if told to."""

    def die(name: str) -> None:
        if name == step:
            raise KeyboardInterrupt

    ledger = RewriteLedger(maker.catalog, "tests")
    with contextlib.suppress(KeyboardInterrupt):
        Eraser(maker.lake, maker.catalog, ledger, StandingClock(), account, die).erase(GRACE_S)


def compact_in_parts(maker: LakeMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several files come of each hour, each with rows of several commits."""
    with monkeypatch.context() as patch:
        patch.setattr(writing, "BATCH_ROWS", 40)
        compactor = Compactor(maker.lake, maker.catalog, RewriteLedger(maker.catalog, "tests"), StandingClock())
        for group in compactor.groups(Limits(), 3600, TABLE_NAMES):
            compactor.compact(group, Limits(file_bytes=1), Compacted())


def others(content: dict[str, Counter[str]], account: str = ERASED) -> dict[str, Counter[str]]:
    return {
        table: Counter({text: count for text, count in rows.items() if account not in text})
        for table, rows in content.items()
    }


def keys_of(root: Path) -> dict[str, int]:
    return {table: sum(rows.values()) for table, rows in content_by_glob(root).items()}


@contextlib.contextmanager
def made_anew(maker: LakeMaker, tmp_path: Path) -> Iterator[tuple[str, Catalog]]:
    """The catalog is lost, and rebuilt."""
    url = sqlite_url(tmp_path / "new.db")
    rebuild(maker.lake, url, plan_of(maker.lake), NOW_US)
    with contextlib.closing(Catalog.open(url, create=False)) as catalog:
        assert_sound(maker.root, catalog)
        yield url, catalog


def settle_all(maker: LakeMaker, catalog: Catalog) -> None:
    for number in (1, 2):
        tidy(maker.lake, RewriteLedger(catalog, "tests"), NOW_US + number * (LATER_US - NOW_US), GRACE_S)
    assert_sound(maker.root, catalog)


@pytest.mark.parametrize("compacted", ("no", "yes", "in parts", "settled"))
def test_an_erased_account_stays_gone_and_others_stay(
    maker: LakeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compacted: str
) -> None:
    kept = others(content_of(maker.root, maker.catalog_url))
    if compacted == "yes":
        compact_all(maker.root, maker.catalog)
    elif compacted != "no":
        compact_in_parts(maker, monkeypatch)
    if compacted == "settled":
        tidy(maker.lake, RewriteLedger(maker.catalog, "tests"), NOW_US, 0)
    erase(maker)
    events = events_of(maker.root, maker.catalog)
    before = maker.catalog.manifest()
    plan = plan_of(maker.lake)
    assert plan.taken_over
    assert plan.unfinished == plan.to_quarantine == []
    with made_anew(maker, tmp_path) as (url, catalog):
        assert content_of(maker.root, url) == kept
        assert catalog.alerts(AlertFilter(entity_id=ERASED)) == []
        assert catalog.alerts() == maker.catalog.alerts()
        assert events_of(maker.root, catalog) == events
        after = catalog.manifest()
        assert after.live == before.live
        assert sorted(after.rewritten, key=str) == sorted(before.rewritten, key=str)
        assert sorted(after.retired) == sorted(before.retired)
        settle_all(maker, catalog)
        assert content_of(maker.root, url) == kept
        assert keys_of(maker.root) == {table: sum(rows.values()) for table, rows in kept.items()}
        assert not list((maker.root / "_rewrites").iterdir())
        assert not (maker.root / "_quarantine").exists()
        assert (
            Eraser(maker.lake, catalog, RewriteLedger(catalog, "tests"), StandingClock(), ERASED).erase().is_proven
        )  # nothing of it on the disk either


def test_originals_stay_for_a_grace_period_of_the_new_catalog(maker: LakeMaker, tmp_path: Path) -> None:
    compact_all(maker.root, maker.catalog)
    with made_anew(maker, tmp_path) as (_, catalog):
        ledger = RewriteLedger(catalog, "tests")
        rewrites = ledger.due((SWAPPED,), NOW_US)
        assert rewrites
        assert all((maker.root / path).exists() for rewrite in rewrites for path in rewrite.inputs)
        assert tidy(maker.lake, ledger, NOW_US + 1, GRACE_S).removed == []
        assert tidy(maker.lake, ledger, LATER_US, GRACE_S).settled == len(rewrites)


def test_what_was_merged_is_there_once(maker: LakeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, by_glob = content_of(maker.root, maker.catalog_url), content_by_glob(maker.root)
    compact_in_parts(maker, monkeypatch)
    live = maker.catalog.live_files()
    with made_anew(maker, tmp_path) as (url, catalog):
        assert sorted(catalog.live_files(), key=str) == sorted(live, key=str)
        assert content_of(maker.root, url) == rows
        settle_all(maker, catalog)
        assert content_of(maker.root, url) == rows
        assert content_by_glob(maker.root) == by_glob


def test_two_accounts_erased_one_after_the_other_stay_gone(maker: LakeMaker, tmp_path: Path) -> None:
    kept = others(others(content_of(maker.root, maker.catalog_url)), "acct_5")
    erase(maker)
    erase(maker, "acct_5")
    with made_anew(maker, tmp_path) as (url, catalog):
        assert content_of(maker.root, url) == kept
        settle_all(maker, catalog)
        assert content_of(maker.root, url) == kept


def test_a_rebuild_that_died_can_be_done_again(
    maker: LakeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = others(content_of(maker.root, maker.catalog_url))
    compact_in_parts(maker, monkeypatch)
    erase(maker)
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "replace_all", _die)
        with pytest.raises(KeyboardInterrupt):
            rebuild(maker.lake, sqlite_url(tmp_path / "new.db"), plan_of(maker.lake), NOW_US)
    with contextlib.suppress(FileNotFoundError):
        (tmp_path / "new.db").unlink()
    with made_anew(maker, tmp_path) as (url, catalog):
        assert content_of(maker.root, url) == kept
        settle_all(maker, catalog)
        assert content_of(maker.root, url) == kept


def _die(*_args: object, **_kwargs: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", ("gone", "broken"))
def test_a_rewrite_that_is_not_whole_is_named_and_what_it_was_made_of_counts(
    maker: LakeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    rows = content_of(maker.root, maker.catalog_url)
    compact_in_parts(maker, monkeypatch)
    new = sorted((maker.root / "_rewrites").glob("*/access/**/*.parquet"))
    assert len(new) > len({file.parent for file in new}), "an hour has several"
    if how == "gone":
        new[0].unlink()
    else:
        new[0].write_bytes(new[0].read_bytes()[:50])
    plan = plan_of(maker.lake)
    (said,) = plan.unfinished
    assert said.startswith(f"_rewrites/{new[0].relative_to(maker.root).parts[1]}: ")
    with made_anew(maker, tmp_path) as (url, catalog):
        assert content_of(maker.root, url) == rows
        settle_all(maker, catalog)
        assert content_of(maker.root, url) == rows


def test_an_erasure_whose_file_is_lost_is_named_by_the_command_and_by_verify_and_is_run_again(
    maker: LakeMaker, tmp_path: Path
) -> None:
    erase(maker)
    new = min((maker.root / "_rewrites").glob("*/access/**/*.parquet"))
    new.write_bytes(b"PAR1")
    url = sqlite_url(tmp_path / "new.db")
    where = ["--lake", str(maker.root), "--catalog", url]
    name = "_rewrites/" + new.relative_to(maker.root).parts[1]
    dry = CliRunner().invoke(app, ["maintain", "rebuild-catalog", *where])
    assert dry.exit_code == 0
    assert name in dry.output
    assert "was it an erasure, run it again" in dry.output
    said = json.loads(CliRunner().invoke(app, ["maintain", "rebuild-catalog", *where, "--apply", "--json"]).stdout)
    assert [one.split(":")[0] for one in said["unfinished"]] == [name]
    assert said["taken_over"]
    verified = CliRunner().invoke(app, ["maintain", "verify", *where])
    assert verified.exit_code == 0
    assert "unfinished" in verified.output
    with contextlib.closing(Catalog.open(url, create=False)) as catalog:
        ledger = RewriteLedger(catalog, "tests")
        assert Eraser(maker.lake, catalog, ledger, StandingClock(LATER_US * 2), ERASED).erase().is_proven
        assert_sound(maker.root, catalog)


def test_an_erasure_that_was_killed_costs_nobody_else_a_row(maker: LakeMaker, tmp_path: Path) -> None:
    """One file was written and not swapped; the others are as they were."""
    rows = content_of(maker.root, maker.catalog_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(erasure, "discard", lambda *_: None)  # as a kill leaves it
        erase(maker, step="written")
    assert list((maker.root / "_rewrites").rglob("*.parquet"))
    with made_anew(maker, tmp_path) as (url, catalog):
        assert others(content_of(maker.root, url)) == others(rows)
        settle_all(maker, catalog)
        ledger = RewriteLedger(catalog, "tests")
        assert Eraser(maker.lake, catalog, ledger, StandingClock(LATER_US * 2), ERASED).erase().is_proven
        assert content_of(maker.root, url) == others(rows)


def test_what_was_made_of_a_rewrite_that_does_not_count_does_not_either(maker: LakeMaker, tmp_path: Path) -> None:
    """That one may have been a replacement, and what it let go would go without what comes."""
    rows = content_of(maker.root, maker.catalog_url)
    compact_all(maker.root, maker.catalog)
    merged = [Path(file.path) for file in maker.catalog.live_files("access")]
    erase(maker)
    for path in merged:
        (maker.root / path).unlink()
    assert len(plan_of(maker.lake).unfinished) == len(merged)
    with made_anew(maker, tmp_path) as (url, catalog):
        found = content_of(maker.root, url)
        assert found["access"] == rows["access"]
        assert found["content"] == others(rows)["content"]
        settle_all(maker, catalog)
        assert content_of(maker.root, url) == found


def test_of_two_rewrites_of_one_file_one_counts(maker: LakeMaker, tmp_path: Path) -> None:
    """A compactor that was killed before its swap, and an erasure that was faster."""
    kept = others(content_of(maker.root, maker.catalog_url))
    url = sqlite_url(tmp_path / "aside.db")
    rebuild(maker.lake, url, plan_of(maker.lake), NOW_US)
    with contextlib.closing(Catalog.open(url, create=False)) as aside:
        compact_all(maker.root, aside)  # swapped for nobody who reads by the lake's catalog
    erase(maker)
    plan = plan_of(maker.lake)
    assert plan.taken_over
    with made_anew(maker, tmp_path) as (made, catalog):
        assert content_of(maker.root, made) == kept
        settle_all(maker, catalog)
        assert content_of(maker.root, made) == kept
