"""Nothing that a node receives is written to the disk."""

import os
import sys

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from feeding import LARGE_BACKLOG, reported, speech_then_silence  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

from ser_ros.audio import SAMPLE_RATE  # noqa: E402
from ser_ros.audio.formats import encode_s16le  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402


def test_no_input_makes_the_node_write_a_file(graph, publisher, tmp_path):
    """Neither a parameter that is a path, nor a message, nor a service call."""
    opened = []

    def watch(event, arguments):
        if event == 'open' and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    publisher.wait_for_subscriber(node)
    target = tmp_path / 'missing' / 'file.none'
    parameter = Parameter('bundle', value=str(target)).to_parameter_msg()
    for service, kind, request in (
        ('set_parameters', SetParameters, SetParameters.Request(parameters=[parameter])),
        ('reload_bundle', Trigger, Trigger.Request()),
        ('reset', Trigger, Trigger.Request()),
        ('enable', SetBool, SetBool.Request(data=True)),
    ):
        client = graph.node.create_client(kind, f'emotion_node/{service}')
        assert client.wait_for_service(20.0)
        answer = client.call_async(request)
        graph.wait(answer.done, service)
    publisher.announce(sample_format=str(target))
    graph.wait(lambda: 'refused' in node.diagnose().message, 'the refusal')
    publisher.announce()
    graph.wait(lambda: 'S16LE' in reported(node)['format'], 'a valid format')
    publisher.publish_block(str(target).encode(), frame_id=str(target))
    publisher.play(encode_s16le(speech_then_silence()[: 4 * SAMPLE_RATE]))
    graph.wait(lambda: reported(node)['windows'] >= 2, 'windows')
    assert [p for p in opened if not p.startswith('/dev/') and '__pycache__' not in p] == []
    assert list(tmp_path.iterdir()) == []
