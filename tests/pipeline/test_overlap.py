"""Steps that overlap, against the rule they follow, against steps that can be worked out by hand, and against the
simulation of one step alone that was there before."""

from __future__ import annotations

import math
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.pipeline import sheet
from muarl_cli.pipeline.drawing import Served, Turn
from muarl_cli.pipeline.forecast import Delivery, Rates, Work, forecast, typical_work, usual_context
from muarl_cli.pipeline.overlap import Course, Trained, steps
from muarl_cli.pipeline.traffic import Caller, Server

ENGINE = Served(decode_base=0.01, decode_row=0.001, prefill=1000.0)
ALONE = {
    (1, 2.0, 64, 3): (264.9523962883084, 81.86785531471183, 0.09478691403790146),
    (1, 0.0, 256, 0): (48.213703104141146, 43.66285616784631, 0.0),
    (4, 0.0, 64, 0): (102.61633727538619, 43.66285616784631, 0.029804262955127708),
    (4, 2.0, 256, 3): (258.1354374562221, 81.86785531471183, 0.12783304520081795),
}
"""(engines, user's seconds, conversations at a time, refills): rollout and update seconds and idle share that the
simulation of a single step gave"""
EPISODE = st.lists(st.builds(Turn, st.integers(1, 50), st.integers(1, 30), st.booleans()), min_size=1, max_size=6)
WORKS = st.lists(EPISODE.map(tuple), min_size=1, max_size=12).map(lambda found: Work(tuple(found), 0.5, 10.0))
RATES = st.builds(Rates, st.just(ENGINE), st.sampled_from([50.0, 500.0, 5000.0]), st.integers(1, 3))


def served(*episodes: tuple[Turn, ...], at: float = 0.0, slots: int = 9, costs: Served = ENGINE) -> Server:
    """A server to which conversations have come."""
    server = Server(costs, Caller(costs), 0.0, 2.0, slots)
    server.add(at, 1, dict(enumerate(episodes)))
    return server


def ends(server: Server) -> list[float]:
    """When each conversation is over, in their order."""
    while server.due < math.inf:
        server.go_on()
    return [when for when, _ in sorted(server.ended, key=lambda end: end[1])]


@pytest.mark.parametrize("case", ALONE, ids=str)
def test_with_a_bound_of_nought_a_step_takes_what_it_took_alone(case: tuple[int, float, int, int]) -> None:
    engines, latency, in_flight, refills = case
    work = typical_work(256, 30, 2048, 5000, 1)
    layout = sheet.Layout(sheet.Engine.MODULE, 4, 4 // engines, engines, 4)
    rates = sheet.rates_of(sheet.QWEN3["8B"], sheet.DEVICES["h200"], layout, usual_context(work) / 2)
    found = forecast(work, rates, latency, in_flight, refills, staleness=0)
    rollout, update, idle = ALONE[case]
    assert found.rollout_seconds == pytest.approx(rollout, rel=1e-9)
    assert found.update_seconds == pytest.approx(update, rel=1e-9)
    assert found.idle_share == pytest.approx(idle, rel=1e-9, abs=1e-12)


def test_the_slower_of_both_sides_sets_the_pace_and_the_other_one_waits() -> None:
    work = Work(((Turn(1, 100, False),),), 1.0, 0.0)
    drawing, update = 0.001 + 100 * 0.011, 101 / 50
    rates = Rates(ENGINE, train=50.0)
    apart, ahead = (forecast(work, rates, 0.0, 1, staleness=bound) for bound in (0, 1))
    assert (apart.rollout_seconds, apart.update_seconds) == pytest.approx((drawing, update))
    assert apart.trainer_idle_share == pytest.approx(drawing / (drawing + update))
    assert apart.rollout_idle_share == pytest.approx(update / (drawing + update))
    assert (ahead.rollout_seconds, ahead.update_seconds) == pytest.approx((0.0, update))
    assert (ahead.trainer_idle_share, ahead.rollout_idle_share) == pytest.approx((0.0, 1 - drawing / update))
    quick = forecast(work, Rates(ENGINE, train=1010.0), 0.0, 1, staleness=1)
    assert (quick.rollout_seconds, quick.update_seconds) == pytest.approx((drawing - 0.1, 0.1))
    assert (quick.trainer_idle_share, quick.rollout_idle_share) == pytest.approx((1 - 0.1 / drawing, 0.0))


@settings(max_examples=60)
@given(
    work=WORKS,
    rates=RATES,
    latency=st.sampled_from([0.0, 0.1, 5.0]),
    slots=st.integers(1, 14),
    refills=st.integers(0, 2),
)
def test_steps_that_overlap_are_no_slower_than_steps_that_do_not(
    work: Work, rates: Rates, latency: float, slots: int, refills: int
) -> None:
    alone, one, two = (forecast(work, rates, latency, slots, refills, bound).step_seconds for bound in (0, 1, 2))
    assert one <= alone * (1 + 1e-9) and two <= alone * (1 + 1e-9)
    # of two bounds above nought the larger may be a little slower: who comes back a moment later misses the others
    assert two <= one * 1.06


@settings(max_examples=40)
@given(work=WORKS, rates=RATES, bound=st.integers(0, 3), latency=st.floats(0, 5), slots=st.integers(1, 14))
def test_each_step_begins_with_the_oldest_weights_that_the_bound_allows_as_soon_as_they_are_served(
    work: Work, rates: Rates, bound: int, latency: float, slots: int
) -> None:
    course = Course([work.episodes, work.episodes[:1]], 10.0, latency, slots, 1.0, 0.5, True, True)
    found = list(islice(steps(course, ENGINE, rates.replicas, bound), 6))
    done = {0: 0.0} | {trained.step: trained.done for trained in found}
    assert [trained.step for trained in found] == [1, 2, 3, 4, 5, 6]
    for trained in found:
        assert trained.served == max(0, trained.step - 1 - bound)
        assert trained.begun == done[trained.served]
        assert trained.begun <= trained.ready
        assert trained.done == pytest.approx(max(trained.ready, done[trained.step - 1]) + 1.5)


def test_a_replacement_goes_before_conversations_of_later_steps_that_wait() -> None:
    long, short = (Turn(1, 100, False),), (Turn(1, 10, False),)
    course = Course([[long, long], [short]], 0.0, 0.0, 1, 0.0, 0.0, True, False)
    first: Trained = next(steps(course, ENGINE, 1, 1))
    own = 2 * (0.001 + 100 * 0.011) + 0.001 + 10 * 0.011
    between = 0.001 + 100 * 0.011  # a place that was free when the replacement was not there yet
    assert first.ready == pytest.approx(own + between)


def test_who_comes_in_the_middle_joins_at_the_next_step() -> None:
    server = served((Turn(1, 20, False),))
    server.add(0.05, 2, {7: (Turn(1, 10, False),)})
    joined = 0.001 + 5 * 0.011
    assert server.clock == pytest.approx(joined)
    assert ends(server) == pytest.approx([joined + 0.001 + 10 * 0.012 + 5 * 0.011, joined + 0.001 + 10 * 0.012])


def test_new_weights_stop_a_server_and_cost_what_it_has_read_and_drawn() -> None:
    turns = (Turn(100, 20, False), Turn(50, 10, True))
    plain = 0.1 + 20 * 0.011 + 2.0 + 0.05 + 10 * 0.011
    assert ends(served(turns)) == pytest.approx([plain])
    during = served(turns)
    during.renew(0.1 + 5 * 0.011, 3.0, in_place=True)
    assert ends(during) == pytest.approx([plain + 3.0 + 105 / 1000])
    beside = served(turns)
    beside.renew(0.1 + 5 * 0.011, 0.0, in_place=False)
    assert ends(beside) == pytest.approx([plain + 120 / 1000]), "the turn ends with the old ones, the next reads anew"
    waiting = served(turns)
    waiting.renew(1.0, 0.5, in_place=True)
    assert ends(waiting) == pytest.approx([plain + 120 / 1000]), "the user takes longer than the server stands still"


def test_the_delivery_is_part_of_the_update_and_re_reading_is_not_free() -> None:
    work = Work(((Turn(100, 20, False),) * 4,) * 8, 1.0, 0.0)
    plain, given_ = (Rates(ENGINE, 5000.0, 1, way) for way in (None, Delivery(0.5, 0.25)))
    apart = [forecast(work, rates, 0.0, 4) for rates in (plain, given_)]
    assert apart[1].update_seconds == pytest.approx(apart[0].update_seconds + 0.75)
    assert apart[1].rollout_seconds == pytest.approx(apart[0].rollout_seconds)
    ahead = [forecast(work, rates, 0.0, 4, staleness=1) for rates in (plain, given_)]
    assert ahead[1].step_seconds > ahead[0].step_seconds + 0.25, "the engine is what is waited for"


def test_turns_pass_one_by_one_through_the_process_that_holds_the_conversations() -> None:
    costs = Served(0.01, 0.0, 1e9, talk=0.3, asking=0.2)
    two = served((Turn(1, 10, False), Turn(1, 10, False)), (Turn(1, 10, False), Turn(1, 10, True)), costs=costs)
    assert ends(two) == pytest.approx([0.1 + 0.3 + 0.1, 0.1 + 0.3 + 0.5 + 2.0 + 0.1], abs=1e-6)


def test_a_server_that_caches_nothing_reads_the_whole_conversation_in_each_turn() -> None:
    turns = (Turn(100, 20, False), Turn(50, 10, False))
    again = Served(0.01, 0.001, 1000.0, again=1 / 1000, turn=0.5)
    assert ends(served(turns, costs=again)) == pytest.approx([*(x + 2 * 0.5 + 120 / 1000 for x in ends(served(turns)))])
