"""What the stream asks of a source; one suite, run on the fake and on Apache Kafka, by both ways to unpack records."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest
from kafka.admin import KafkaAdminClient

from pipeline.errors import RetryableError
from pipeline.ports import Assigned
from tests.contract.source_worlds import UNKNOWN, ApacheWorld, FakeWorld, MakeWorld, Member, World
from tests.servers import create_topic


@pytest.fixture(params=("fake", "stock", "columnar"))
def make_world(request: pytest.FixtureRequest) -> Iterator[MakeWorld]:
    """`make_world(partitions=1, own=False)`; `own`: on a broker that the test may stop."""
    with contextlib.ExitStack() as worlds:

        def make(partitions: int = 1, *, own: bool = False) -> World:
            if request.param == "fake":
                return FakeWorld(partitions)
            if own:
                broker = request.getfixturevalue("own_kafka")()
                admin = worlds.enter_context(contextlib.closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap)))
                create_topic(admin, "logs", partitions)
                name = "logs"
            else:
                broker, admin = request.getfixturevalue("full_kafka"), request.getfixturevalue("kafka_admin")
                name = request.getfixturevalue("topic")(partitions)
            world = ApacheWorld(broker, admin, name, partitions, request.param)
            worlds.callback(world.close)
            return world

        yield make


def numbered(count: int, first: int = 0) -> list[bytes | None]:
    return [b"%d" % number for number in range(first, first + count)]


# ---- partitions come and go


def test_an_assigned_partition_is_told_once_and_waits_to_be_read(make_world: MakeWorld) -> None:
    world = make_world(2)
    for partition in world.partitions:
        world.produce(partition, numbered(3))
    member = world.joined()
    world.rounds(10)
    assert (
        sorted(p for event in member.events if isinstance(event, Assigned) for p in event.partitions)
        == world.partitions
    )
    assert member.records == []
    assert all(member.source.position(partition) is not None for partition in world.partitions)
    assert member.source.lag(world.partitions) is None, "nothing is known of what is not read"


def test_partitions_move_to_a_second_member_and_come_back(make_world: MakeWorld) -> None:
    """Who lost a partition is told so, and whatever it does with it does nothing."""
    world = make_world(4)
    for partition in world.partitions:
        world.produce(partition, numbered(5))
    first = world.joined()
    second = world.join()
    world.until(lambda: len(first.held) == len(second.held) == 2, "each holds two")
    assert first.held.isdisjoint(second.held)
    gone = sorted(second.held)
    world.until(lambda: all(first.source.position(partition) is None for partition in gone), "they are the second's")
    for partition in gone:
        assert not first.source.read_from(partition, 0, UNKNOWN)
        assert first.source.leader_epoch(partition, 0) == UNKNOWN
        assert second.source.read_from(partition, 0, UNKNOWN)
    first.source.pause(gone)
    first.source.resume(gone)
    first.source.hint(dict.fromkeys(gone, 3))
    assert first.source.lag(gone) is None
    world.until(lambda: all(len(second.offsets(partition)) == 5 for partition in gone), "the second reads them")
    assert not any(first.offsets(partition) for partition in gone)
    world.leave(second)
    world.until(lambda: first.held == set(world.partitions), "the first has all again")
    for partition in gone:
        assert first.source.read_from(partition, 5, UNKNOWN)
    world.rounds(3)
    assert first.records == [], "those that it kept still wait to be read, the others are at their end"


def test_members_that_work_between_brief_polls_come_to_share(make_world: MakeWorld) -> None:
    """The answer to a join comes while nobody polls; whoever joins anew then makes all others join anew."""
    world = make_world(2)
    first = world.joined()
    second = world.join()
    for _ in range(120):
        for member in world.members:
            member.poll(0.001)
        if len(first.held) == len(second.held) == 1:
            break
        time.sleep(0.1)  # their work, in the midst of which the answer must come: what is tested
    assert len(first.held) == len(second.held) == 1


# ---- reading


def test_records_come_in_order_from_the_very_offset_asked_for(make_world: MakeWorld) -> None:
    world = make_world(2)
    p0, p1 = world.partitions
    world.produce(p0, [*numbered(500), None, b""])
    world.produce(p1, numbered(7))
    member = world.joined()
    assert member.source.read_from(p0, 123, UNKNOWN)
    assert member.source.read_from(p1, 0, UNKNOWN)
    world.until(lambda: member.source.position(p0) == 502 and member.source.position(p1) == 7, "all is read")
    assert member.offsets(p0) == list(range(123, 502))
    assert member.values(p0) == [*numbered(500)[123:], None, b""]
    assert member.offsets(p1) == list(range(7))
    at = {p0: 123, p1: 0}
    for part in member.records:
        assert len(part.offsets) == len(part.values) == len(part.timestamps)
        if len(part):
            assert at[part.partition] <= part.offsets[0] <= part.offsets[-1] < part.next_offset
        at[part.partition] = part.next_offset
    assert at == {p0: 502, p1: 7}
    assert member.source.lag(world.partitions) == 0


def test_reading_can_begin_again_anywhere(make_world: MakeWorld) -> None:
    world = make_world()
    [p0] = world.partitions
    world.produce(p0, numbered(10))
    member = world.joined()
    member.source.read_from(p0, 0, UNKNOWN)
    world.until(lambda: member.source.position(p0) == 10, "all is read")
    member.source.read_from(p0, 4, UNKNOWN)
    assert member.source.position(p0) == 4
    assert member.source.lag([p0]) == 6
    world.until(lambda: member.source.position(p0) == 10, "the rest is read again")
    world.produce(p0, numbered(10))
    member.source.read_from(p0, 15, UNKNOWN)
    world.until(lambda: member.source.position(p0) == 20, "the end is read")
    assert member.offsets(p0) == [*range(10), *range(4, 10), *range(15, 20)]


def test_the_position_goes_past_what_nobody_is_to_see(make_world: MakeWorld) -> None:
    """Aborted records and markers, in between and at the very end."""
    world = make_world()
    [p0] = world.partitions
    world.produce(p0, numbered(3))
    world.abort(p0, 4)
    world.produce(p0, numbered(3, first=3))
    world.abort(p0, 2)
    member = world.joined()
    held = world.answer(member.source.survey(p0, UNKNOWN))
    assert (held.first, held.end) == (0, 14)
    member.source.read_from(p0, 0, UNKNOWN)
    world.until(lambda: member.source.position(p0) == 14, "the position is at the end")
    assert member.offsets(p0) == [0, 1, 2, 8, 9, 10]
    assert member.values(p0) == numbered(6)
    assert max(part.next_offset for part in member.records) <= 14
    assert member.source.lag([p0]) == 0


def test_a_paused_partition_gives_nothing_and_then_goes_on_where_it_stood(make_world: MakeWorld) -> None:
    world = make_world(2)
    p0, p1 = world.partitions
    world.produce(p0, numbered(5))
    member = world.joined()
    for partition in world.partitions:
        member.source.read_from(partition, 0, UNKNOWN)
    world.until(lambda: member.source.position(p0) == 5, "what is there is read")
    member.source.pause([p0])
    world.produce(p0, numbered(50, first=5))
    world.produce(p1, numbered(50))
    world.until(lambda: member.source.position(p1) == 50, "the other is read")
    world.rounds(5)
    assert member.offsets(p0) == list(range(5))
    assert member.source.position(p0) == 5
    assert member.source.lag([p0, p1]) is None, "what is paused learns of nothing new"
    member.source.resume([p0])
    world.until(lambda: member.source.position(p0) == 55, "the rest is read")
    assert member.values(p0) == numbered(55)


# ---- what the log holds


def test_a_survey_tells_where_the_log_begins_and_ends_and_what_log_it_is(make_world: MakeWorld) -> None:
    world = make_world(2)
    p0, p1 = world.partitions
    world.produce(p0, numbered(20))
    member = world.joined()
    held, empty = world.answer(member.source.survey(p0, UNKNOWN)), world.answer(member.source.survey(p1, UNKNOWN))
    assert (held.first, held.end, held.agrees_to) == (0, 20, None)
    assert (empty.first, empty.end) == (0, 0)
    assert held.topic_id == empty.topic_id != ""
    world.delete_before(p0, 12)
    held = world.answer(member.source.survey(p0, UNKNOWN))
    assert (held.first, held.end) == (12, 20)


def test_the_leader_epoch_is_known_where_reading_stands_and_agrees_with_the_log(make_world: MakeWorld) -> None:
    world = make_world()
    [p0] = world.partitions
    world.produce(p0, numbered(5))
    member = world.joined()
    member.source.read_from(p0, 0, UNKNOWN)
    assert member.source.leader_epoch(p0, 0) == UNKNOWN, "nothing is read yet"
    world.until(lambda: member.source.position(p0) == 5, "all is read")
    epoch = member.source.leader_epoch(p0, 5)
    assert epoch >= 0
    assert member.source.leader_epoch(p0, 4) == UNKNOWN
    assert world.answer(member.source.survey(p0, epoch)).agrees_to == 5
    assert world.answer(member.source.survey(p0, epoch + 7)).agrees_to == 0, "no such epoch was ever there"
    assert member.source.read_from(p0, 5, epoch)
    world.produce(p0, numbered(5, first=5))
    world.until(lambda: member.source.position(p0) == 10, "the rest is read")
    assert member.values(p0) == numbered(10)
    assert member.lost() == []


def test_a_log_of_another_history_is_told_once_and_not_read(make_world: MakeWorld) -> None:
    world = make_world(2)
    p0, p1 = world.partitions
    world.produce(p0, numbered(10))
    member = world.joined()
    member.source.read_from(p0, 5, 7)
    member.source.read_from(p1, 0, UNKNOWN)
    world.until(lambda: member.lost() == [p0], "it is told")
    world.produce(p1, numbered(5))
    world.until(lambda: member.source.position(p1) == 5, "the other is read")
    world.rounds(5)
    assert member.lost() == [p0]
    assert member.offsets(p0) == []


@pytest.mark.parametrize("offset", (3, 25))
def test_an_offset_that_the_log_does_not_hold_is_told_once_and_the_others_are_read(
    make_world: MakeWorld, offset: int
) -> None:
    """Below its beginning or beyond its end; once it is told where to read on, it does."""
    world = make_world(2)
    p0, p1 = world.partitions
    world.produce(p0, numbered(20))
    world.delete_before(p0, 10)
    member = world.joined()
    member.source.read_from(p1, 0, UNKNOWN)
    member.source.read_from(p0, offset, UNKNOWN)
    world.until(lambda: member.lost() == [p0], "it is told")
    world.produce(p1, numbered(5))
    world.until(lambda: member.source.position(p1) == 5, "the other is read")
    world.rounds(5)
    assert member.lost() == [p0]
    assert member.offsets(p0) == []
    assert member.source.read_from(p0, 10, UNKNOWN)
    world.until(lambda: member.source.position(p0) == 20, "all that is there is read")
    assert member.offsets(p0) == list(range(10, 20))


# ---- people and outages


def test_lag_tools_see_what_was_hinted(make_world: MakeWorld) -> None:
    world = make_world(2)
    p0, p1 = world.partitions
    world.produce(p0, numbered(5))
    member = world.joined()
    member.source.hint({p0: 4})
    world.until(lambda: world.hinted(p0) == 4, "the hint arrived")
    assert world.hinted(p1) is None


def test_a_hint_in_the_midst_of_a_rebalance_arrives_all_the_same(make_world: MakeWorld) -> None:
    world = make_world(2)
    p0, p1 = world.partitions
    for partition in (p0, p1):
        world.produce(partition, numbered(9))
    member = world.joined()
    for offset in (2, 3, 4):
        _hint_while_another_comes_and_goes(world, member, offset)


def _hint_while_another_comes_and_goes(world: World, member: Member, offset: int) -> None:
    p0, p1 = world.partitions
    other = world.join()
    for _ in range(offset):
        world.rounds(1)
        member.source.hint(dict.fromkeys(member.held, offset))
    world.until(lambda: len(other.held) == len(member.held) == 1, "it is shared")
    world.leave(other)
    world.until(lambda: member.held == {p0, p1}, "it has all again")
    member.source.hint({p0: offset, p1: offset})
    world.until(lambda: world.hinted(p0) == world.hinted(p1) == offset, "the hints arrived")


def test_silence_of_the_brokers_is_no_error_but_counted_and_what_they_said_last_is_not_shown(
    make_world: MakeWorld,
) -> None:
    world = make_world(own=True)
    [p0] = world.partitions
    world.produce(p0, numbered(5))
    member = world.joined()
    member.source.read_from(p0, 0, UNKNOWN)
    world.until(lambda: member.source.lag([p0]) == 0, "all is read")
    world.rounds(20)
    assert member.source.silent_s < 2, "a broker that has nothing new to say is not silent"
    assert member.source.address
    with world.silence():
        before_s = time.monotonic()
        survey = member.source.survey(p0, UNKNOWN)
        assert time.monotonic() - before_s < 1, "nobody waits for a broker"
        with pytest.raises(RetryableError):
            world.answer(survey)
        world.until(lambda: member.source.silent_s > 10, "the silence is counted")
        assert member.source.lag([p0]) is None
        assert member.source.position(p0) == 5
    world.produce(p0, numbered(5, first=5))
    world.until(lambda: member.source.position(p0) == 10, "the rest is read")
    assert member.source.silent_s < 2
    assert member.values(p0) == numbered(10)
