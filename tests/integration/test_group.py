"""A member's place in Kafka's group, where kafka-python alone would lose it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from kafka.errors import KafkaTimeoutError

from pipeline.config import Settings
from pipeline.io.kafka import KafkaSource
from pipeline.ports import Assigned
from tests.integration.workers import Producer, site_of
from tests.servers import KafkaServer
from tests.waiting import wait_until


def test_a_member_that_joins_anew_for_longer_than_a_poll_keeps_its_place(
    full_kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """It leads the group, and joins again as after a change of the topic, polling too briefly to see the join's end.

    A second member then gets its share only if the first one still listens to the group.
    """
    name = topic(2)
    settings = Settings(bootstrap=full_kafka.bootstrap, topic=name, group=f"group-{name}")
    with contextlib.closing(KafkaSource(settings)) as first, contextlib.closing(KafkaSource(settings)) as second:
        first.open()
        second.open()
        wait_until(lambda: any(isinstance(event, Assigned) for event in first.poll(0.1).events), "all is the first's")
        coordinator = first._consumer._coordinator
        wait_until(lambda: not first.poll(0.1).events and not coordinator.rejoining, "the group has settled")
        coordinator._assignment_snapshot = {}
        first.poll(0)
        assert coordinator.rejoining, "it has begun to join, and not ended"
        wait_until(lambda: coordinator._assignment_snapshot != {}, "its join is all but done")
        given: list[int] = []

        def shared() -> bool:
            first.poll(0.1)
            given.extend(len(event.partitions) for event in second.poll(0.1).events if isinstance(event, Assigned))
            return sum(given) > 0

        wait_until(shared, "the second has its share", bound_s=30)
        assert sum(given) == 1


def test_a_member_whose_join_times_out_joins_again(full_kafka: KafkaServer, topic: Callable[..., str]) -> None:
    """As one does whose coordinator is long in greeting; kafka-python holds what timed out to be under way still."""
    name = topic(1)
    with contextlib.closing(
        KafkaSource(Settings(bootstrap=full_kafka.bootstrap, topic=name, group=f"group-{name}"))
    ) as member:
        member.open()
        coordinator = member._consumer._coordinator
        joins, join = [0], coordinator._do_join_and_sync_async

        async def late_at_first() -> object:
            joins[0] += 1
            if joins[0] > 1:
                return await join()
            await coordinator._manager._net.sleep(0.3)
            raise KafkaTimeoutError

        coordinator._do_join_and_sync_async = late_at_first
        wait_until(lambda: any(isinstance(event, Assigned) for event in member.poll(0.1).events), "it is in the group")
        assert joins[0] > 1


def test_of_two_workers_of_one_name_the_first_ends_and_says_so(
    tmp_path: Path, full_kafka: KafkaServer, topic: Callable[..., str]
) -> None:
    """Kafka lets the later one in; the former would go on fencing it."""
    with (
        site_of(tmp_path, full_kafka.bootstrap, topic(1)) as site,
        Producer(full_kafka.bootstrap, site.topic, rate=500),
    ):
        file = tmp_path / "twin.toml"
        file.write_text('group_instance_id = "twin"\nfile_age_s = 0.3\nsession_timeout_s = 6\n')
        first = site.command("--config", str(file))
        first.wait_for("reading")
        second = site.command("--config", str(file))
        second.wait_for("reading")
        assert first.process.wait(60) == 2
        assert "with the same group_instance_id 'twin'" in first.log()[-1]["event"]
        assert second.stop() == 0
