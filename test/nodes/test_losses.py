"""Sound that a network loses: a stopped process does not read, and its socket overflows."""

import itertools
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from ament_index_python.packages import get_package_prefix  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from feeding import START, AudioPublisher  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402

from ser_ros.audio import SECOND  # noqa: E402

N_BLOCKS = 3_000


@pytest.fixture
def node(domain_id):
    """An emotion node that receives by UDP: shared memory would keep what is not read."""
    path = Path(get_package_prefix('ser_ros'), 'lib', 'ser_ros', 'emotion_node')
    environment = {
        **os.environ,
        'ROS_DOMAIN_ID': str(domain_id),
        'FASTDDS_BUILTIN_TRANSPORTS': 'UDPv4',
    }
    command = [path, '--ros-args', '-p', 'device:=cpu', '-p', 'sample_format:=S16LE']
    process = subprocess.Popen(command, env=environment)
    yield process
    process.send_signal(signal.SIGCONT)
    process.terminate()
    process.wait(20)


def test_blocks_of_which_none_arrives_are_named_as_the_cause(graph, node):
    """Fragments of a large block overflow the socket of a process that does not read it."""
    profile = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = AudioPublisher(graph, qos=profile)
    diagnostics = graph.subscribe(DiagnosticArray, '/diagnostics')
    publisher.wait_for_subscriber(timeout=60.0)

    def is_named():
        node.send_signal(signal.SIGSTOP)
        publisher.publish_block(bytes(1_500_000))
        node.send_signal(signal.SIGCONT)
        return diagnostics and 'were lost on the way' in diagnostics[-1].status[0].message

    graph.wait(is_named, 'the message', 60)
    assert 'set reliability to reliable' in diagnostics[-1].status[0].message
    assert diagnostics[-1].status[0].level == DiagnosticStatus.STALE


def test_sound_that_the_network_loses_is_counted(graph, publisher, node):
    """In two ways: as messages by the middleware, and as seconds by the stamps."""
    diagnostics = graph.subscribe(DiagnosticArray, '/diagnostics')

    def values():
        pairs = diagnostics[-1].status[0].values if diagnostics else []
        return {p.key: float(p.value) for p in pairs if re.fullmatch(r'[\d.]+', p.value)}

    numbers = itertools.count()

    def publish_next():
        publisher.publish_block(bytes(640), START + next(numbers) * SECOND // 50)

    def is_received():
        publish_next()
        return values().get('blocks', 0) > 0

    # What is lost before the first block that is received is not counted.
    graph.wait(is_received, 'a block', 60)
    node.send_signal(signal.SIGSTOP)
    for _ in range(N_BLOCKS):
        publish_next()
    node.send_signal(signal.SIGCONT)

    def loss_is_counted():
        # A loss is noticed when the next block arrives, which may be lost as well.
        publish_next()
        return values().get('lost seconds', 0.0) > 1.0

    graph.wait(loss_is_counted, 'a loss', 60)
    counted = values()
    assert counted['messages lost'] > 0
    assert counted['seconds'] + counted['lost seconds'] <= next(numbers) * 0.02 + 0.001
