"""A model that never returns: whatever is asked of the node, no callback waits without a limit."""

import contextlib
import threading
import time

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from feeding import LARGE_BACKLOG, assert_logs_only, speech_then_silence  # noqa: E402
from hri_msgs.msg import IdsList  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

from ser_ros import HangError  # noqa: E402
from ser_ros.audio.formats import encode_s16le  # noqa: E402
from ser_ros.backends import load_backend  # noqa: E402
from ser_ros.nodes import emotion_node, managed_node  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import TRANSIENT_LOCAL  # noqa: E402
from ser_ros.stream import listener  # noqa: E402

PATIENCE = 1.5


class Hang:
    """Lets a model hang from its next window on, until the end of the test."""

    def __init__(self):
        self.has_begun, self.is_over = threading.Event(), threading.Event()

    def __call__(self, *_):
        self.has_begun.set()
        self.is_over.wait(60)


def end(hang, node):
    """Let the model return, and end the thread that a node which hangs leaves to its process."""
    hang.is_over.set()
    node._receiver.close()


@pytest.fixture
def hanging(graph, publisher, monkeypatch):
    """An active node, started by a lifecycle manager, whose model hangs."""
    hang = Hang()
    node = graph.make(EmotionNode, autostart=False, **LARGE_BACKLOG)
    for trigger in (node.trigger_configure, node.trigger_activate):
        assert graph.run(trigger) == TransitionCallbackReturn.SUCCESS
    score = node._backend.score
    node._backend.score = lambda windows: (hang(), score(windows))[1]
    for module in (managed_node, listener):
        monkeypatch.setattr(module, 'PATIENCE', PATIENCE)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    publisher.play(encode_s16le(speech_then_silence()))
    graph.wait(hang.has_begun.is_set, 'a window')
    yield node
    end(hang, node)


def call(graph, service_type, name, request):
    client = graph.node.create_client(service_type, f'emotion_node/{name}')
    assert client.wait_for_service(20.0)
    answer = client.call_async(request)
    graph.wait(answer.done, f'an answer of {name}')
    return answer.result()


SERVICES = {
    'reset': (Trigger, Trigger.Request()),
    'enable': (SetBool, SetBool.Request(data=False)),
    'reload_bundle': (Trigger, Trigger.Request()),
    'change_state': (
        ChangeState,
        ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE)),
    ),
    'set_parameters': (
        SetParameters,
        SetParameters.Request(parameters=[Parameter('hop', value=0.5).to_parameter_msg()]),
    ),
}


def test_nothing_needs_to_be_asked(graph, hanging, capfd):
    graph.wait(lambda: hanging.failed, 'the node to give up')
    report = hanging.diagnose()
    assert report.level == DiagnosticStatus.ERROR
    assert 'the worker hangs' in report.message
    assert 'lifecycle set' not in report.message  # it would not help
    assert_logs_only(graph, capfd, 'the worker hangs')


@pytest.mark.parametrize('name', SERVICES)
def test_services_answer(graph, hanging, name):
    answer = call(graph, SERVICES[name][0], name, SERVICES[name][1])
    graph.wait(lambda: hanging.failed, 'the node to give up')
    assert name == 'set_parameters' or not answer.success


@pytest.mark.parametrize('what', ['the robot speaks', 'the time jumps'])
def test_messages_and_jumps_of_the_clock_do_not_block(graph, hanging, what):
    start = time.monotonic()
    if what == 'the robot speaks':
        speaking = graph.node.create_publisher(Bool, 'robot_speaking', TRANSIENT_LOCAL)
        speaking.publish(Bool(data=True))
    else:
        jump = type('Jump', (), {'delta': rclpy.duration.Duration(seconds=-1)})
        graph.run(lambda: hanging._on_time_jump(jump))
    graph.wait(lambda: hanging.failed, 'the node to give up')
    graph.run(hanging.destroy_node)
    assert time.monotonic() - start < 10 * PATIENCE


def test_many_voices_are_not_waited_for_one_by_one(graph, monkeypatch):
    node = graph.make(EmotionNode, device='cpu', ros4hri=True, max_voices=20)
    tracked = graph.node.create_publisher(IdsList, '/humans/voices/tracked', TRANSIENT_LOCAL)
    tracked.publish(IdsList(ids=[f'voice{n}' for n in range(20)]))
    graph.wait(lambda: len(node._connections) == 20, 'the voices')
    hang = Hang()
    for module in (managed_node, listener):
        monkeypatch.setattr(module, 'PATIENCE', PATIENCE)

    def ask():
        with contextlib.suppress(HangError):
            node._listener.call_between_windows(hang)

    threading.Thread(target=ask, daemon=True).start()
    graph.wait(hang.has_begun.is_set, 'the hang')
    start = time.monotonic()
    tracked.publish(IdsList())
    graph.wait(lambda: node.failed, 'the node to give up')
    graph.run(lambda: None)
    assert time.monotonic() - start < 6 * PATIENCE
    end(hang, node)


def test_a_bundle_that_does_not_load_is_not_waited_for(graph, monkeypatch):
    node = graph.make(EmotionNode, device='cpu')
    monkeypatch.setattr(emotion_node, 'LOADING_PATIENCE', 0.5)
    hang, load = Hang(), emotion_node.load_backend
    monkeypatch.setattr(emotion_node, 'load_backend', hang)
    assert 'not loaded within 0.5 s' in call(graph, *reload_request()).message
    monkeypatch.setattr(emotion_node, 'load_backend', load)
    monkeypatch.setattr(emotion_node, 'LOADING_PATIENCE', 60.0)
    assert call(graph, *reload_request()).success
    hang.is_over.set()
    assert not node.failed


def test_a_node_that_ends_waits_for_a_bundle_that_is_being_loaded(graph, monkeypatch):
    """Its thread would be within a library when the process ends, which aborts it."""
    hang, load = Hang(), emotion_node.load_backend
    node = EmotionNode(context=graph.context)
    node.autostart()
    monkeypatch.setattr(
        emotion_node, 'load_backend', lambda *arguments: (hang(), load(*arguments))[1]
    )
    request = node._reload_bundle(Trigger.Request(), Trigger.Response())
    request.send(None)  # as an executor does, up to where it waits for the bundle
    assert hang.has_begun.wait(20)
    threading.Timer(0.2, hang.is_over.set).start()
    node.destroy_node()
    assert not node._loader.is_alive()
    request.close()


def test_classes_are_those_of_the_bundle_that_classified(
    graph, bundle_path, write_bundle, tmp_path
):
    """Also while the worker still has a window of the bundle that is being replaced."""
    few = write_bundle(tmp_path / 'few.safetensors', class_names=('happy', 'sad'))
    node = graph.make(EmotionNode, device='cpu', bundle=str(bundle_path))
    old, new = node._class_names(), load_backend(few, device='cpu')
    hang = Hang()
    threads = [
        threading.Thread(target=node._listener.call_between_windows, args=(hang,)),
        threading.Thread(target=node._use, args=(new, None)),
    ]
    threads[0].start()
    graph.wait(hang.has_begun.is_set, 'the worker to be busy')
    threads[1].start()
    graph.wait(lambda: node._backend is new, 'the new bundle')
    assert node._class_names() == old
    hang.is_over.set()
    for thread in threads:
        thread.join(20)
    assert node._class_names() == ('happy', 'sad')


def reload_request():
    return Trigger, 'reload_bundle', Trigger.Request()
