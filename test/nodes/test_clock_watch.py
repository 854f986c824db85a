"""Simulated time that does not advance is a problem."""

from ser_ros.nodes.clock_watch import NEVER, STILL, ClockWatch


def test_time_that_stands_still_is_a_problem_until_it_advances():
    now = 100.0
    watch = ClockWatch(lambda: now)
    assert watch.problem(7) is None
    now += STILL - 0.1
    assert watch.problem(7) is None
    now += 2.0
    assert watch.problem(7) == (
        'simulated time has stood still for 12 s: nothing new comes on /clock'
    )
    assert watch.problem(8) is None
    now += 0.1
    assert watch.problem(7) is None  # it jumped back


def test_time_that_never_came_is_another_problem():
    now = 100.0
    watch = ClockWatch(lambda: now)
    assert watch.problem(0) is None
    now += NEVER
    assert 'no time has come on /clock' in watch.problem(0)
