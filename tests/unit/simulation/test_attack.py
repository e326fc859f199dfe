"""Harvesters are in a hurry or not, and some put worked examples before their questions, as customers do."""

import random
from collections import defaultdict
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from pipeline.simulation import Simulation
from pipeline.simulation.attack import _hidden
from pipeline.simulation.benign import classifier, etl
from pipeline.simulation.harvest import Harvest
from pipeline.simulation.identity import Shared, draw_origin
from pipeline.simulation.sessions import Behaviour, Request, interleave, singles
from pipeline.simulation.wording import Wording

START = datetime(2026, 3, 2, tzinfo=UTC)
IN_A_HURRY_S = 10.0


def share_in_a_hurry(variant: str) -> list[float]:
    """Of each account of a variant: the share of its requests that came within seconds of the one before."""
    simulation = Simulation(seed=3, accounts=300, start=START, hours=24, attack_share=0.4, variants=(variant,))
    harvesting = {label.account_id for label in simulation.labels if label.variant == variant}
    times = defaultdict(list)
    for event in simulation.events():
        if event["account_id"] in harvesting:
            times[event["account_id"]].append(datetime.fromisoformat(event["event_time"]).timestamp())
    gaps = [[after - before for before, after in pairwise(own)] for own in times.values() if len(own) > 5]
    return [sum(gap < IN_A_HURRY_S for gap in own) / len(own) for own in gaps]


def test_a_loud_harvester_spreads_its_requests_or_sends_them_as_fast_as_it_can() -> None:
    shares = share_in_a_hurry("loud")

    assert 0.2 < sum(share > 0.6 for share in shares) / len(shares) < 0.8
    assert 0.2 < sum(share < 0.2 for share in shares) / len(shares) < 0.8


def test_members_of_some_pools_ask_all_they_have_to_ask_at_once() -> None:
    shares = share_in_a_hurry("hydra")

    assert any(share > 0.6 for share in shares)
    assert any(share < 0.2 for share in shares)


def test_who_keeps_the_hours_of_a_person_is_never_in_a_hurry() -> None:
    assert max(share_in_a_hurry("paced")) < 0.3


def begins_alike(prompts: list[str]) -> bool:
    return len({prompt[:120] for prompt in prompts}) == 1 and min(map(len, prompts)) > 120


def test_some_harvests_put_the_same_worked_examples_before_every_question() -> None:
    harvests = [Harvest("domain_qa", seed, 4) for seed in range(80)]

    shown = sum(begins_alike([harvest.prompt(number) for number in range(8)]) for harvest in harvests)

    assert 0.1 < shown / len(harvests) < 0.45


def test_so_do_some_jobs_of_customers() -> None:
    for job in (etl, classifier):
        shown = 0
        for seed in range(60):
            rng = random.Random(seed)
            sessions = job(rng, draw_origin(rng, personal=False, shared=Shared())).sessions(0)
            prompts = [
                request.prompt for _, (_, session) in zip(range(4), sessions, strict=False) for _, request in session
            ]
            shown += begins_alike(prompts[:8])
        assert 0.05 < shown / 60 < 0.6


def test_worked_examples_are_as_many_as_asked_for_at_most() -> None:
    counts = {
        Wording(random.Random(seed).random).shown(lambda: "Q", lambda: "A", most=4).count("Q\nA\n\n")
        for seed in range(50)
    }

    assert counts == {1, 2, 3, 4}


@pytest.mark.parametrize("conversation", (None, "conv_1"))
def test_a_relay_harvests_nothing_before_its_users_have_asked(conversation: str | None) -> None:
    """Before, its gateway has shown nobody whether it names conversations, and its own requests would be told by it."""
    begin_ms, day_ms = 6 * 3_600_000, 24 * 3_600_000
    rng = random.Random(5)
    users = Behaviour(
        100, lambda _: singles(range(begin_ms, day_ms, 900_000), lambda: Request("u", None, 1, 0, 9, conversation))
    )
    relay = _hidden(
        rng, users, lambda: Request("h", None, 1, 0, 9), draw_origin(rng, personal=False, shared=Shared()), 0.5
    )

    sent = list(interleave(relay.sessions(0), day_ms))

    assert min(at_ms for at_ms, _ in sent) == begin_ms
    harvest = [request for _, request in sent if request.prompt == "h"]
    assert len(harvest) > 20
    assert {request.conversation is None for request in harvest} == {conversation is None}
