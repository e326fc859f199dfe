"""Several workers of one lake, interleaved call by call by a seeded scheduler, and crashed, frozen and fenced by it.

Each worker is a thread that stands still before each call to its source, its lake or its catalog (a gate) until the
scheduler lets it take one step.  Only one of them ever runs, so a seed gives the same run each time.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import orjson

from pipeline.batch import Partition
from pipeline.errors import RetryableError
from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.lake import Lake
from pipeline.stream import Limits, Stream
from pipeline.watching import WatchLimits
from tests.fakes import FakeClock, FakeKafka
from tests.findings import Found, found_in, uninterrupted
from tests.stages import stand_ins

STEP_BOUND_S = 60.0
WATCH_LIMITS = WatchLimits(alert_age_s=0.5, snapshot_events=15, snapshot_age_s=20.0)
LIMITS = Limits(
    file_rows_max=12, file_bytes_max=1 << 20, file_age_s=2.0, buffer_bytes_max=1 << 16, retry_s=1e9, watch=WATCH_LIMITS
)


DELICATE = (
    "take", "pending", "sweep", "stage", "stage_snapshot", "commit", "place", "next file", "publish", "read_from",
    "snapshots", "remove_snapshots", "read_snapshot", "read_events",
)  # fmt: skip
"""Calls before which a frozen worker does most harm."""


class CrashError(BaseException):
    """Ends a worker on the spot, as `kill -9` would."""


class Gate:
    """Where one worker waits until the scheduler lets it go on."""

    def __init__(self) -> None:
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._crash = False
        self.over = False
        self.at = "start"

    def wait(self, at: str) -> None:
        """Called by the worker before each step."""
        self.at = at
        self._stopped.release()
        self._go.acquire()
        if self._crash:
            raise CrashError

    def finish(self) -> None:
        """Called by the worker at its end."""
        self.over = True
        self._stopped.release()

    def step(self, *, crash: bool = False) -> None:
        """Called by the scheduler: let the worker go on to its next gate, or to its end."""
        self._crash = crash
        self._go.release()
        self.arrive()

    def arrive(self) -> None:
        """Called by the scheduler: wait until the worker stands at a gate."""
        assert self._stopped.acquire(timeout=STEP_BOUND_S), f"a worker hangs after {self.at}"


class Gated:
    """An object whose every method waits at the gate first, and now and then fails as the outside world does."""

    def __init__(self, behind: Any, gate: Gate, failing: Callable[[str], bool], unclear: Sequence[str] = ()) -> None:
        self._behind, self._gate, self._failing, self._unclear = behind, gate, failing, unclear

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._behind, name)
        if not callable(method):
            return method

        def call(*arguments: Any, **named: Any) -> Any:
            self._gate.wait(name)
            fails = self._failing(name)
            if fails and name not in self._unclear:
                raise RetryableError(f"{name}: injected, nothing was done")
            given = [self._stepwise(argument) if name in ("stage", "place") else argument for argument in arguments]
            result = method(*given, **named)
            if fails:
                raise RetryableError(f"{name}: injected, all was done")
            return result

        return call

    def _stepwise(self, argument: Any) -> Any:
        """A list whose items each wait at the gate: so a crash may fall between the files of one commit."""
        return GatedList(argument, self._gate) if isinstance(argument, list) else argument


class GatedList(list[Any]):
    def __init__(self, items: list[Any], gate: Gate) -> None:
        super().__init__(items)
        self._gate = gate

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            self._gate.wait("next file")
            yield item


class SimulatedWorker:
    """One process of `stillwatch run`."""

    def __init__(self, world: World, name: str) -> None:
        self.name, self.gate = name, Gate()
        self.member = world.kafka.join(world.clock, world.rng)
        self.stopping = False
        self.error: BaseException | None = None
        self.failures_max = 0.0
        self._world, self._random = world, random.Random(world.rng.random())
        self._catalog = Catalog.open(world.url, create=True)
        self.stream = Stream(
            source=Gated(self.member, self.gate, lambda _name: False),
            storage=Gated(world.lake, self.gate, self._fails),
            ledger=Gated(self._catalog, self.gate, self._fails, unclear=("commit", "publish", "take", "start_at")),
            clock=world.clock,
            limits=LIMITS,
            worker=name,
            watch=stand_ins(),
            step=self.gate.wait,
        )
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()
        self.gate.arrive()

    def _fails(self, _name: str) -> bool:
        return self._random.random() < self.failures_max

    def _work(self) -> None:
        try:
            self.gate.wait("start")
            self.stream.run(lambda: self.stopping)
            self.stream.flush(self._world.clock.elapsed_s() + 30.0)
        except CrashError:
            pass
        except BaseException as error:  # noqa: BLE001  # handed to the thread that judges
            self.error = error
        finally:
            self.gate.finish()

    def end(self) -> None:
        """Let go of what a dead process would have let go of."""
        self._thread.join(STEP_BOUND_S)
        self._catalog.close()


class World:
    """A broker, a lake, a catalog, and workers that come and go."""

    def __init__(self, folder: Path, seed: int, partitions: int) -> None:
        self.rng = random.Random(seed)
        self.clock = FakeClock()
        self.kafka = FakeKafka(partitions, first_offset=self.rng.choice([0, 100]))
        self.lake = Lake.open(str(folder / "lake"), create=True)
        self.url = sqlite_url(folder / "catalog.db")
        self.catalog = Catalog.open(self.url, create=True)
        self.workers: list[SimulatedWorker] = []
        self.frozen: dict[SimulatedWorker, int] = {}
        self.expected: dict[Partition, dict[int, bytes | None]] = {partition: {} for partition in self.kafka.logs}
        self._started = 0

    # ---- what may happen

    def act(self) -> None:
        """Let one thing happen."""
        self._thaw()
        awake = [worker for worker in self.workers if worker not in self.frozen]
        dice = self.rng.random()
        if dice < 0.02:
            self.produce(self.rng.randint(1, 15))
        elif dice < 0.03 or not self.workers:
            self.start()
            self.rebalance()
        elif dice < 0.04:
            self.rebalance()
        elif dice < 0.045 and awake:
            self.crash(self.rng.choice(awake))
            self.rebalance()
        elif dice < 0.055 and awake:
            self.frozen[self.rng.choice(self._delicate(awake) or awake)] = self.rng.randint(20, 150)
            self.rebalance(without=set(self.frozen))
        elif dice < 0.058 and awake:
            self.rng.choice(awake).stopping = True
        elif dice < 0.064:
            self.rng.choice([self._delete_old, self._elect])()
        elif dice < 0.08:
            self.clock.sleep(self.rng.uniform(0, 1.0))
        elif awake:
            self.step(self.rng.choice(awake))

    def produce(self, count: int) -> None:
        """Write records, some of them broken, empty or markers."""
        for _ in range(count):
            partition = self.rng.choice(list(self.kafka.logs))
            log = self.kafka.logs[partition]
            dice = self.rng.random()
            if dice < 0.15:
                log.append_marker()
                continue
            value = None if dice < 0.18 else b"{broken" if dice < 0.25 else event(partition, log.end, self.rng)
            self.expected[partition][log.append(value)] = value

    def start(self) -> SimulatedWorker:
        """Start another worker, which may meet failures of the lake and the catalog."""
        self._started += 1
        worker = SimulatedWorker(self, f"worker-{self._started}")
        worker.failures_max = self.rng.choice([0.0, 0.0, 0.02, 0.2])
        self.workers.append(worker)
        return worker

    def rebalance(self, without: set[SimulatedWorker] | None = None) -> None:
        """Give each partition to any worker, or for a while to none."""
        candidates = [worker for worker in self.workers if worker not in (without or set()) and not worker.stopping]
        owners = {
            partition: self.rng.choice([*candidates, None]) if candidates else None for partition in self.kafka.logs
        }
        self.kafka.assign({partition: owner.member if owner else None for partition, owner in owners.items()})

    def crash(self, worker: SimulatedWorker) -> None:
        """Kill a worker where it stands."""
        worker.gate.step(crash=True)
        self._bury(worker)

    def step(self, worker: SimulatedWorker) -> None:
        """Let a worker go on to its next call."""
        worker.gate.step()
        if worker.gate.over:
            self._bury(worker)

    def close(self) -> None:
        """Kill whoever is left."""
        for worker in list(self.workers):
            self.crash(worker)
        self.catalog.close()

    def _bury(self, worker: SimulatedWorker) -> None:
        assert worker.gate.over
        self.workers.remove(worker)
        self.frozen.pop(worker, None)
        worker.member.told.clear()
        self.kafka.leave(worker.member)
        worker.end()
        if worker.error is not None:
            raise worker.error

    def _thaw(self) -> None:
        self.frozen = {worker: left - 1 for worker, left in self.frozen.items() if left}

    @staticmethod
    def _delicate(workers: list[SimulatedWorker]) -> list[SimulatedWorker]:
        """Those that are about to change what others see."""
        return [worker for worker in workers if worker.gate.at in DELICATE]

    def _delete_old(self) -> None:
        """Retention: Kafka drops records that are landed already."""
        for partition, offset in self.catalog.offsets().items():
            self.kafka.logs[partition].delete_before(self.rng.randint(0, offset))

    def _elect(self) -> None:
        """A partition gets another leader, which has all that the former one had."""
        self.rng.choice(list(self.kafka.logs.values())).elect()

    # ---- the end

    def settle(self) -> None:
        """One last worker, with everything for itself and nothing failing, lands what is left."""
        for worker in list(self.workers):
            if self.rng.random() < 0.5:
                self.crash(worker)
        zombies = list(self.workers)
        last = self.start()
        last.failures_max = 0.0
        self.kafka.assign(dict.fromkeys(self.kafka.logs, last.member))
        ends = {partition: log.end for partition, log in self.kafka.logs.items()}
        for _ in range(20_000):
            if self.catalog.offsets() == ends and not self.catalog.pending():
                break
            self.step(last)
            if zombies and self.rng.random() < 0.2:  # they go on, and learn of their loss at their next poll
                zombie = self.rng.choice(zombies)
                self.step(zombie)
                if zombie.gate.over:
                    zombies.remove(zombie)
        assert self.catalog.offsets() == ends, "the last worker did not reach the end"

    def landed(self) -> dict[str, dict[Partition, list[tuple[int, bytes | None]]]]:
        """What a plain glob and what the catalog's files say of each partition: offset and payload, in offset order."""
        live = self.catalog.live_files()
        return {
            "glob": self._read({table: [f"{self.lake.root}/{table}/**/*.parquet"] for table in ("access", "rejects")}),
            "catalog": self._read(
                {
                    table: [str(self.lake.root / file.path) for file in live if file.table_name == table]
                    for table in ("access", "rejects")
                }
            ),
        }

    def found(self) -> Found:
        """Windows and alerts, as lake and catalog have them."""
        return found_in(self.lake, self.catalog)

    def wanted_findings(self) -> Found:
        """What a worker would have found that nothing ever happened to."""
        records = {
            partition: {at: (value, -1) for at, value in rows.items()} for partition, rows in self.expected.items()
        }
        return uninterrupted(records, stand_ins())

    def _read(self, files: dict[str, list[str]]) -> dict[Partition, list[tuple[int, bytes | None]]]:
        rows: dict[Partition, list[tuple[int, bytes | None]]] = {partition: [] for partition in self.kafka.logs}
        columns = {"access": "request_id::BLOB", "rejects": "raw"}
        with duckdb.connect() as connection:
            for table, paths in files.items():
                if not any((self.lake.root / table).rglob("*.parquet")) or not paths:
                    continue
                query = f'SELECT topic, partition, "offset", {columns[table]} FROM read_parquet(?)'
                for topic, number, offset, value in connection.execute(query, [paths]).fetchall():
                    rows[Partition(topic, number)].append((offset, value))
        return {partition: sorted(found, key=lambda row: row[0]) for partition, found in rows.items()}

    def wanted(self) -> dict[Partition, list[tuple[int, bytes | None]]]:
        """What should have landed."""
        return {
            partition: [(offset, request_id(value)) for offset, value in sorted(records.items())]
            for partition, records in self.expected.items()
        }


def event(partition: Partition, offset: int, rng: random.Random) -> bytes:
    """An event that says where it was written, of one of a few accounts and hours, with text or without."""
    row = {
        "event_time": f"2026-05-01T{rng.randint(9, 11):02d}:{rng.randint(0, 59):02d}:00Z",
        "request_id": f"{partition}@{offset}",
        "account_id": f"account-{rng.randint(1, 4)}",
        "model": "large-4",
        "prompt": rng.choice(["hello", None]),
    }
    return orjson.dumps(row)


def request_id(value: bytes | None) -> bytes | None:
    """What of a payload is compared: the event's id, or all of a reject."""
    return orjson.loads(value)["request_id"].encode() if value and value.endswith(b"}") else value
