"""Subscriptions with both durabilities: what is passed on, and in which order."""

import itertools
from functools import partial

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from std_msgs.msg import Int32  # noqa: E402

from ser_ros.nodes.messages import (  # noqa: E402
    TRANSIENT_LOCAL,
    FirstArrivals,
    subscribe_transient_local,
)


@pytest.mark.parametrize(
    ('qos', 'n_subscriptions'),
    [(TRANSIENT_LOCAL, 2), (QoSProfile(depth=10), 1)],
    ids=['transient local', 'volatile'],
)
def test_messages_that_wait_are_passed_on_once_and_in_order(graph, qos, n_subscriptions):
    """A node that is busy for a moment finds several messages, each of them perhaps twice."""
    received = []
    graph.run(
        lambda: subscribe_transient_local(
            graph.node, Int32, 'numbers', lambda message: received.append(message.data)
        )
    )
    publisher = graph.node.create_publisher(Int32, 'numbers', qos)
    graph.wait(lambda: publisher.get_subscription_count() == n_subscriptions, 'subscriptions')

    def publish(first):
        for number in range(first, first + 5):
            publisher.publish(Int32(data=number))

    for first in range(0, 50, 5):
        graph.run(partial(publish, first))  # in the thread that spins: it receives none meanwhile
        graph.wait(lambda: len(received) >= first + 5, 'five numbers')  # noqa: B023
    assert received == list(range(50))


def test_the_last_message_is_received_by_a_node_that_comes_later(graph):
    publisher = graph.node.create_publisher(Int32, 'numbers', TRANSIENT_LOCAL)
    for number in range(3):
        publisher.publish(Int32(data=number))
    received = []
    graph.run(
        lambda: subscribe_transient_local(
            graph.node, Int32, 'numbers', lambda message: received.append(message.data)
        )
    )
    graph.wait(lambda: received, 'a number')
    assert received == [2]


@given(
    is_lost=st.lists(st.booleans(), min_size=1, max_size=10),
    chooses_reliable=st.lists(st.booleans(), min_size=20, max_size=20),
)
def test_the_last_published_has_the_last_word_whatever_is_lost(is_lost, chooses_reliable):
    """The reliable subscription receives all, the other one those that the network did not lose."""
    passed_on = []
    arrivals = FirstArrivals(passed_on.append)
    reliable = list(range(len(is_lost)))
    best_effort = [time for time in reliable if not is_lost[time]]
    for is_next_reliable in itertools.chain(chooses_reliable, itertools.repeat(True)):
        if reliable and (is_next_reliable or not best_effort):
            time = reliable.pop(0)
            arrivals.on_reliable(time, {'source_timestamp': time})
        elif best_effort:
            time = best_effort.pop(0)
            arrivals.on_best_effort(time, {'source_timestamp': time})
        else:
            break
    assert passed_on[-1] == len(is_lost) - 1
    assert set(passed_on) == set(range(len(is_lost)))
    if not any(is_lost):
        assert passed_on == sorted(passed_on)
        assert len(passed_on) == len(is_lost)
