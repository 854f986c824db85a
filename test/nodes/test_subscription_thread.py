"""A thread for subscriptions, with real rclpy."""

import threading

import pytest
from rclpy.qos import qos_profile_sensor_data
from std_msgs.msg import Int32

from ser_ros.nodes.subscription_thread import SubscriptionThread


@pytest.fixture
def errors():
    return []


@pytest.fixture
def receiver(graph, errors):
    receiver = SubscriptionThread(graph.node, 'sound', errors.append)
    yield receiver
    receiver.close()
    assert 'test_sound' not in [thread.name for thread in threading.enumerate()]


@pytest.fixture
def flood(graph):
    """Publishes numbers as fast as it can."""
    publisher = graph.node.create_publisher(Int32, 'numbers', qos_profile_sensor_data)
    stopping = threading.Event()

    def publish():
        number = 0
        while not stopping.wait(1e-4):
            number += 1
            publisher.publish(Int32(data=number))

    thread = threading.Thread(target=publish)
    thread.start()
    yield
    stopping.set()
    thread.join()


def test_messages_arrive_in_its_thread(graph, receiver, flood):
    threads = []
    receiver.node.create_subscription(
        Int32,
        'numbers',
        lambda _: threads.append(threading.current_thread().name),
        qos_profile_sensor_data,
    )
    graph.wait(lambda: len(threads) > 10, 'messages')
    assert set(threads) == {'test_sound'}


def test_it_has_no_services(graph, receiver):
    assert receiver.node.get_fully_qualified_name() == '/test_sound'
    assert list(receiver.node.services) == []


def test_subscriptions_come_and_go_while_messages_arrive(graph, receiver, flood, errors):
    for _ in range(50):
        received = threading.Event()
        subscription = receiver.node.create_subscription(
            Int32, 'numbers', lambda _, r=received: r.set(), qos_profile_sensor_data
        )
        assert received.wait(20)
        receiver.node.destroy_subscription(subscription)
    assert errors == []


def test_an_error_of_a_callback_is_reported(graph, receiver, flood, errors):
    def fail(_):
        raise ValueError('a message')

    receiver.node.create_subscription(Int32, 'numbers', fail, qos_profile_sensor_data)
    graph.wait(lambda: errors, 'the error')
    assert [str(error) for error in errors] == ['a message']
