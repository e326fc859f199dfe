"""Records of a topic's past are read again, in the place of what they were landed as, at one moment and each once."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from typer.testing import CliRunner, Result

from jobs import backfill_replace_past
from jobs.cli import app
from pipeline.io.catalog import Catalog
from pipeline.io.lake import Lake
from pipeline.io.rebuild import plan_of, rebuild
from pipeline.io.rewriting.ledger import RewriteLedger
from pipeline.io.rewriting.settling import tidy
from tests.catalogs import new_catalog_url
from tests.integration.backfills import PastLake, assert_whole, counted, tables_of
from tests.integration.test_backfill import Compacting
from tests.integration.test_backfill_past import offsets_of, past_of
from tests.integration.workers import Producer, Site, ends_of, site_of
from tests.lake_maker import LakeMaker
from tests.servers import KafkaServer
from tests.waiting import wait_until

START = datetime(2026, 3, 2, tzinfo=UTC)
EACH = 60
"""Records of each of two partitions, one a minute by Kafka's clock."""

EVERYTHING = ("--from", "0")
NEVER_US = 1 << 60


def payload(partition: int, at: int, model: str) -> bytes:
    """Some records are no event to the former release, some to neither."""
    if at % 15 == 3 or (at % 15 == 4 and model == "wrong"):
        return b"no event"
    said = {
        "event_time": (START + timedelta(minutes=at)).isoformat(), "account_id": f"a{at % 5}", "model": model,
        "request_id": f"{partition}-{at}", "prompt": f"p{at}",
    }  # fmt: skip
    return orjson.dumps(said)


@pytest.fixture(params=("sqlite",))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where no catalog is yet."""
    return new_catalog_url(request, tmp_path)


@pytest.fixture
def site(tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str], url: str) -> Iterator[Site]:
    """A topic, and a lake where a former release has landed it, with models that are wrong."""
    with site_of(tmp_path, kafka.bootstrap, topic(2), catalog=url, scoring="off") as site:
        producer = KafkaProducer(bootstrap_servers=site.bootstrap, acks="all", enable_idempotence=True)
        with contextlib.closing(LakeMaker(site.lake, url)) as maker:
            for partition in (0, 1):
                for first in range(0, EACH, 10):
                    some = range(first, first + 10)
                    stamp = stamp_of(first)
                    maker.append(
                        [payload(partition, at, "wrong") for at in some], topic=site.topic, partition=partition,
                        kafka_ms=stamp,
                    )  # fmt: skip
                    for at in some:
                        value = payload(partition, at, "right")
                        producer.send(site.topic, value=value, partition=partition, timestamp_ms=stamp)
        producer.flush(60)
        producer.close()
        yield site


def stamp_of(at: int) -> int:
    return int((START + timedelta(minutes=at)).timestamp() * 1000)


def run(site: Site, *arguments: object) -> Result:
    where = ["--lake", site.lake, "--catalog", site.catalog_url, "--bootstrap", site.bootstrap, "--topic", site.topic]
    return CliRunner().invoke(app, ["backfill", *map(str, where), *map(str, arguments)])


def replaced(site: Site, *arguments: object) -> str:
    result = run(site, "--replace", *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def seen(site: Site) -> dict[tuple[int, int], str]:
    """What readers see of each record: its model, or that it is a reject; fails where one is there twice."""
    tables = tables_of(site.lake, site.catalog_url)
    found: dict[tuple[int, int], str] = {}
    for table in ("access", "rejects"):
        for row in tables[table].to_pylist():
            place = row["partition"], row["offset"]
            assert place not in found, (place, found[place], row)
            found[place] = row.get("model", "reject")
    texts = [(row["partition"], row["offset"]) for row in tables["content"].to_pylist()]
    assert sorted(texts) == sorted(place for place, model in found.items() if model != "reject")
    return found


def expected(right: Callable[[int, int], bool]) -> dict[tuple[int, int], str]:
    """What is to be seen where some records are read again."""
    found = {}
    for partition in (0, 1):
        for at in range(EACH):
            said = payload(partition, at, "right" if right(partition, at) else "wrong")
            found[partition, at] = "reject" if said == b"no event" else orjson.loads(said)["model"]
    return found


WRONG = expected(lambda *_: False)
RIGHT = expected(lambda *_: True)


def settle(site: Site) -> None:
    with contextlib.closing(Catalog.open(site.catalog_url, create=False)) as catalog:
        for _ in range(2):
            tidy(Lake(site.lake), RewriteLedger(catalog, "tests"), NEVER_US, 0)


@pytest.mark.timeout(200)
def test_a_range_by_offset_and_by_time_is_read_again_and_the_rest_stays(site: Site, tmp_path: Path) -> None:
    """In the middle of commits, too; given again it is replaced again; and the job goes on after what it had landed."""
    before = {path: path.read_bytes() for path in site.lake.rglob("*.parquet")}
    assert seen(site) == WRONG
    dry = replaced(site, "--from", "15", "--to", "40", "--dry-run")
    assert counted(dry)["to be read"] == 50
    assert counted(dry)["rejects"] == 4
    assert "Dry run: nothing was written" in dry
    assert {path: path.read_bytes() for path in site.lake.rglob("*.parquet")} == before
    assert not (site.lake / "_replacing").exists()

    said = counted(replaced(site, "--from", "15", "--to", "40", "--parallel", "2"))
    assert (said["events that went"], said["events that came"]) == (42, 46)
    assert (said["rejects that went"], said["rejects that came"]) == (8, 4)
    assert seen(site) == expected(lambda _, at: 15 <= at < 40)
    assert_whole(site.lake, site.catalog_url)

    replaced(site, "--from", "2026-03-02T00:30", "--to", "2026-03-02T00:50Z")
    assert seen(site) == expected(lambda _, at: 15 <= at < 50)
    assert counted(replaced(site, *EVERYTHING))["events that came"] == sum(it != "reject" for it in RIGHT.values())
    assert seen(site) == RIGHT
    with Compacting(PastLake(site.lake, catalog=site.catalog_url)):
        pass
    replaced(site, *EVERYTHING)
    settle(site)
    assert seen(site) == RIGHT
    assert_whole(site.lake, site.catalog_url)
    assert list((site.lake / "_replacing").iterdir()) == []

    assert counted(run(site, *EVERYTHING, "--no-score").stdout)["read"] == 0, "all of it counts as landed"
    assert site.command("--scoring", "off", "--once").process.wait(60) == 0
    assert seen(site) == RIGHT
    new = f"sqlite:///{tmp_path / 'new.db'}"
    rebuild(Lake(site.lake), new, plan_of(Lake(site.lake)), 1)
    site.catalog_url = new
    assert seen(site) == RIGHT
    assert counted(run(site, *EVERYTHING, "--no-score").stdout)["read"] == 0
    assert site.command("--scoring", "off", "--once").process.wait(60) == 0
    assert seen(site) == RIGHT


STEPS = ("staged", "committed", "placed", "begun", "written", "swapped")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("url", ("sqlite", pytest.param("postgresql", marks=pytest.mark.soak)), indirect=True)
def test_killed_after_any_step_it_goes_on_and_is_seen_whole_or_not_at_all(site: Site) -> None:
    """While compactors merge the same hours."""
    lake = past_of(site, site.lake)
    for number, step in enumerate(STEPS):
        flags = ("--replace", "--from", "5", "--to", "55")
        assert lake.backfill(*flags, crash=(step, 1)).returncode == -signal.SIGKILL, step
        assert seen(site) == (WRONG if step != "swapped" else expected(lambda _, at: 5 <= at < 55)), step
        if number % 2:
            with Compacting(lake):
                pass
    assert "was made already" in lake.landed("--replace", "--from", "5", "--to", "55")
    assert seen(site) == expected(lambda _, at: 5 <= at < 55)
    assert_whole(site.lake, site.catalog_url)


@pytest.mark.timeout(200)
def test_a_catalog_that_is_lost_is_made_anew_of_before_and_the_same_command_goes_on(site: Site) -> None:
    lake = past_of(site, site.lake)
    assert lake.backfill("--replace", *EVERYTHING, crash=("swapped", 1)).returncode == -signal.SIGKILL
    assert seen(site) == RIGHT
    Path(site.catalog_url.removeprefix("sqlite:///")).unlink()
    plan = plan_of(Lake(site.lake))
    assert len(plan.replacements) == 1
    rebuild(Lake(site.lake), site.catalog_url, plan, 1)
    assert seen(site) == WRONG
    assert counted(run(site, *EVERYTHING, "--no-score").stdout)["read"] == 0
    replaced(site, *EVERYTHING)
    assert seen(site) == RIGHT
    settle(site)
    assert_whole(site.lake, site.catalog_url)


@pytest.mark.timeout(200)
def test_beside_a_running_job_nothing_is_lost_or_doubled(
    tmp_path: Path, kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """What it lands after the command has begun stays, and is neither read again nor missed."""
    with site_of(tmp_path, kafka.bootstrap, topic(2), scoring="off") as site:
        past = past_of(site, site.lake)
        with Producer(site.bootstrap, site.topic, rate=500) as producer:
            live = site.worker()
            wait_until(lambda: site.landed() > 200, "the live job")
            for _ in range(3):
                past.landed("--replace", "--from", "20")
            producer.finish()
        ends = ends_of(site.bootstrap, site.topic)
        every = [(number, offset) for number, end in sorted(ends.items()) for offset in range(end)]
        wait_until(lambda: landed_to(site) == ends, "all that was sent")
        assert live.stop() == 0
        assert offsets_of(past) == every
        past.landed("--replace", "--from", "20", "--parallel", "2")
        assert offsets_of(past) == every
        assert_whole(site.lake, site.catalog_url)


def landed_to(site: Site) -> dict[int, int]:
    """Where the live job goes on, by partition."""
    with contextlib.closing(Catalog.open(site.catalog_url, create=False)) as catalog:
        return {at.number: offset for at, offset in catalog.offsets().items() if at.topic == site.topic}


def landing_before_the_swap(monkeypatch: pytest.MonkeyPatch, land: Callable[[], object]) -> None:
    """Something else lands rows when a replacement has read its records and not swapped them yet."""
    swapped = backfill_replace_past.swapped

    def after(*given: Any) -> Any:
        monkeypatch.undo()
        land()
        return swapped(*given)

    monkeypatch.setattr(backfill_replace_past, "swapped", after)


@pytest.mark.timeout(200)
def test_what_others_land_of_the_same_records_meanwhile_goes_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another replacement; and a reject that a replay makes an event of while it is read again."""
    landing_before_the_swap(monkeypatch, lambda: replaced(site, "--from", "30"))
    replaced(site, "--from", "10", "--to", "40")
    assert seen(site) == expected(lambda _, at: at >= 10)
    with contextlib.closing(LakeMaker(site.lake, site.catalog_url)) as maker:
        maker.append([payload(0, 4, "again")], topic=f"again:1:{site.topic}", kafka_ms=stamp_of(0))
    with contextlib.closing(LakeMaker(site.lake, site.catalog_url)) as maker:
        landing_before_the_swap(
            monkeypatch,
            lambda: maker.append([payload(0, 1, "again")], topic=f"again:1:{site.topic}", kafka_ms=stamp_of(0)),
        )
        replaced(site, *EVERYTHING)
    assert seen(site) == RIGHT
    assert_whole(site.lake, site.catalog_url)


@pytest.mark.timeout(200)
def test_what_was_erased_does_not_come_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where it is erased while its records are read again: then nothing is changed, and given again it works."""
    where = ["--lake", str(site.lake), "--catalog", site.catalog_url, "--apply"]
    erase = ["maintain", "erase", *where, "--account"]

    def erased(account: str, *, proven: bool = True) -> None:
        result = CliRunner().invoke(app, [*erase, account])
        assert (result.exception is None) == proven, (result.output, result.exception)

    def without(known: Mapping[tuple[int, int], str], *accounts: int) -> dict[tuple[int, int], str]:
        return {place: it for place, it in known.items() if it == "reject" or place[1] % 5 not in accounts}

    erased("a1")
    replaced(site, "--from", "0", "--to", "30")
    assert seen(site) == without(expected(lambda _, at: at < 30), 1)
    landing_before_the_swap(monkeypatch, lambda: erased("a2", proven=False))
    refused = run(site, "--replace", *EVERYTHING)
    assert "were erased or grew too old while the range was read again" in str(refused.exception)
    erased("a2")
    replaced(site, *EVERYTHING)
    assert seen(site) == without(RIGHT, 1, 2)
    assert_whole(site.lake, site.catalog_url)


@pytest.mark.timeout(200)
def test_what_cannot_be_read_again_stays_and_it_says_so(site: Site, kafka: KafkaServer) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    admin.delete_records({TopicPartition(site.topic, 0): 20})
    admin.close()
    for flags, words in (
        (("--from", "10"), "gone are of .*-0 10 records, offsets 10 to 19"),
        (
            ("--from", "2026-03-02T00:05", "--to", "2026-03-02T00:40"),
            "10 records, offsets 10 to 19.*or leave --from out",
        ),
        (("--from", "0", "--to", "10"), "10 records, offsets 0 to 9"),
        (("--from", "20", "--of", site.topic), "leave --of out"),
        (("--from", "20", "--score"), "is landed without scores"),
        (("--rejects",), "--replace --rejects: a reject that is an event today takes no row's place"),
        (("--from", "500"), "none has a row in this lake"),
    ):
        refused = run(site, "--replace", *flags)
        assert refused.exception is not None
        assert re.search(words, str(refused.exception)), (flags, refused.exception)
    assert seen(site) == WRONG
    replaced(site, "--to", "30")
    assert seen(site) == expected(lambda partition, at: at < 30 and (at >= 20 or partition == 1))
    assert_whole(site.lake, site.catalog_url)
