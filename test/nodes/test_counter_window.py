"""The increase of counters within the last seconds."""

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from ser_ros.nodes.counter_window import CounterWindow


def test_the_increase_is_that_of_the_last_seconds():
    now = [100.0]
    window = CounterWindow(10.0, clock=lambda: now[0])
    assert window.add({'lost': 5}) == ({'lost': 0}, 0.0)
    now[0] += 1
    assert window.add({'lost': 7}) == ({'lost': 2}, 1.0)
    for _ in range(10):
        now[0] += 1
        increase, seconds = window.add({'lost': 7})
    assert (increase, seconds) == ({'lost': 0}, 10.0)


def test_counters_that_restart_at_zero_have_not_decreased():
    now = [0.0]
    window = CounterWindow(10.0, clock=lambda: now[0])
    window.add({'lost': 5, 'blocks': 7})
    now[0] += 1
    assert window.add({'lost': 0, 'blocks': 8})[0] == {'lost': 0, 'blocks': 0}
    now[0] += 1
    assert window.add({'lost': 1, 'blocks': 9})[0] == {'lost': 1, 'blocks': 1}


def test_a_new_counter_increases_from_zero():
    window = CounterWindow()
    window.add({})
    assert window.add({'lost': 3})[0] == {'lost': 3}
    assert window.add({})[0] == {}
