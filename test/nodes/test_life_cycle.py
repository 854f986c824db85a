"""Every transition of the life cycle, its failures, and many repetitions."""

import gc

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from feeding import LARGE_BACKLOG, SPEECH, AudioPublisher, assert_logs_only  # noqa: E402
from lifecycle_msgs.msg import State, Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from ser_ros import SerError  # noqa: E402
from ser_ros.audio import SAMPLE_RATE  # noqa: E402
from ser_ros.audio.block_queue import BlockQueue  # noqa: E402
from ser_ros.nodes.audio_capture_node import AudioCaptureNode  # noqa: E402
from ser_ros.nodes.diagnostics import Level, Report, resident_megabytes  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402

CAPTURE = {'source': 'file', 'file': str(SPEECH), 'loop': True}
NODES = {
    'audio_capture_node': (AudioCaptureNode, CAPTURE),
    'emotion_node': (EmotionNode, {'device': 'cpu'}),
}
CYCLE = (
    (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
    (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
    (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
    (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED),
)


@pytest.fixture(params=NODES)
def managed(request, graph):
    """A node without autostart, with functions to request transitions and its state."""
    cls, parameters = NODES[request.param]
    node = graph.make(cls, autostart=False, **parameters)
    client = graph.node.create_client(ChangeState, f'{request.param}/change_state')
    assert client.wait_for_service(20.0)

    def change(transition):
        answer = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
        graph.wait(answer.done, f'an answer to {transition}', 60)
        return answer.result().success

    node.change = change
    node.state = lambda: graph.state_of(request.param)
    return node


def fail_in(node, step, error):
    """Make one step of the node fail once."""

    def fail():
        delattr(node, step)
        raise error

    setattr(node, step, fail)


def test_a_manager_runs_the_whole_life_cycle(managed):
    for transition, state in CYCLE:
        assert managed.change(transition)
        assert managed.state() == state
    assert managed.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert managed.state() == State.PRIMARY_STATE_FINALIZED


def test_a_transition_that_the_state_does_not_have_is_refused(managed, capfd):
    """As by a second manager, or a person who repeats a command."""
    assert not managed.change(Transition.TRANSITION_ACTIVATE)
    assert managed.change(Transition.TRANSITION_CONFIGURE)
    assert not managed.change(Transition.TRANSITION_CONFIGURE)
    assert managed.state() == State.PRIMARY_STATE_INACTIVE
    assert managed.change(Transition.TRANSITION_ACTIVATE)
    assert not managed.change(Transition.TRANSITION_CONFIGURE)
    assert not managed.change(99)
    assert managed.state() == State.PRIMARY_STATE_ACTIVE
    assert 'transition 99 is not possible while the node is active' in capfd.readouterr().err


@pytest.mark.parametrize('state', ['inactive', 'active'])
def test_it_can_be_shut_down_in_every_state(managed, state):
    managed.change(Transition.TRANSITION_CONFIGURE)
    if state == 'active':
        managed.change(Transition.TRANSITION_ACTIVATE)
        assert managed.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    else:
        assert managed.change(Transition.TRANSITION_INACTIVE_SHUTDOWN)
    assert managed.state() == State.PRIMARY_STATE_FINALIZED


@pytest.mark.parametrize(
    ('step', 'before', 'transition'),
    [
        ('setup', State.PRIMARY_STATE_UNCONFIGURED, Transition.TRANSITION_CONFIGURE),
        ('start', State.PRIMARY_STATE_INACTIVE, Transition.TRANSITION_ACTIVATE),
    ],
)
@pytest.mark.parametrize('is_expected', [True, False], ids=['expected error', 'unexpected error'])
def test_a_failed_transition_can_be_repeated(
    managed, capfd, step, before, transition, is_expected
):
    if step == 'start':
        assert managed.change(Transition.TRANSITION_CONFIGURE)
    fail_in(
        managed, step, SerError('not today') if is_expected else ZeroDivisionError('not today')
    )
    assert not managed.change(transition)
    assert 'not today' in capfd.readouterr().err
    # After an unexpected error, nothing stays configured.
    expected = before if is_expected else State.PRIMARY_STATE_UNCONFIGURED
    assert managed.state() == expected
    if expected == State.PRIMARY_STATE_UNCONFIGURED:
        assert managed.change(Transition.TRANSITION_CONFIGURE)
    if managed.state() == State.PRIMARY_STATE_INACTIVE:
        assert managed.change(Transition.TRANSITION_ACTIVATE)
    assert managed.state() == State.PRIMARY_STATE_ACTIVE


@pytest.mark.parametrize('step', ['setup', 'start'])
def test_a_failed_attempt_is_an_error_until_the_next(managed, step):
    def level_and_message():
        return managed.diagnose().level, managed.diagnose().message

    configure, activate = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
    assert level_and_message() == (DiagnosticStatus.OK, 'not configured')
    if step == 'start':
        assert managed.change(configure)
        assert level_and_message() == (DiagnosticStatus.OK, 'not active')
    fail_in(managed, step, SerError('no such device'))
    assert not managed.change(activate if step == 'start' else configure)
    what = 'not active' if step == 'start' else 'not configured'
    assert level_and_message() == (DiagnosticStatus.ERROR, f'{what}: no such device')
    if step == 'setup':
        assert managed.change(configure)
        assert level_and_message() == (DiagnosticStatus.OK, 'not active')
    else:
        assert managed.change(Transition.TRANSITION_CLEANUP)
        assert level_and_message() == (DiagnosticStatus.OK, 'not configured')


@pytest.mark.parametrize('step', ['stop', 'after_stop', 'teardown'])
def test_errors_during_deactivation_and_cleanup_are_reported(managed, step):
    """The rest of the transition runs all the same. rclpy itself would ignore the error."""
    original = getattr(managed, step)

    def fail():
        delattr(managed, step)
        original()
        raise ZeroDivisionError('not today')

    managed.change(Transition.TRANSITION_CONFIGURE)
    managed.change(Transition.TRANSITION_ACTIVATE)
    setattr(managed, step, fail)
    is_success = managed.change(Transition.TRANSITION_DEACTIVATE)
    if step == 'teardown':
        assert is_success
        is_success = managed.change(Transition.TRANSITION_CLEANUP)
    assert not is_success
    assert managed.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert managed.diagnose().level == DiagnosticStatus.ERROR
    assert 'ZeroDivisionError: not today' in managed.diagnose().message
    for transition, state in CYCLE:
        assert managed.change(transition)
        assert managed.state() == state


@pytest.mark.parametrize('step', ['after_stop', 'teardown'])
def test_errors_during_shutdown_are_logged(managed, capfd, step):
    managed.change(Transition.TRANSITION_CONFIGURE)
    managed.change(Transition.TRANSITION_ACTIVATE)
    fail_in(managed, step, ZeroDivisionError('not today'))
    assert managed.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert managed.state() == State.PRIMARY_STATE_FINALIZED
    assert 'ZeroDivisionError: not today' in capfd.readouterr().err


def test_a_start_that_fails_half_way_leaves_nothing_behind(graph):
    node = graph.make(EmotionNode, device='cpu', autostart=False, ros4hri=True)

    def fail(*_, **__):
        del node._connect
        raise ZeroDivisionError('not today')

    assert graph.run(node.trigger_configure) == TransitionCallbackReturn.SUCCESS
    n_before = len(list(node.subscriptions))
    node._connect = fail
    assert graph.run(node.trigger_activate) == TransitionCallbackReturn.ERROR
    assert len(list(node.subscriptions)) == n_before
    assert graph.state_of('emotion_node') == State.PRIMARY_STATE_UNCONFIGURED
    graph.wait(
        lambda: not graph.node.count_publishers('/humans/voices/tracked'),
        'the end of its publisher',
    )
    graph.run(node.trigger_configure)
    assert graph.run(node.trigger_activate) == TransitionCallbackReturn.SUCCESS
    node.set_parameters([Parameter('hop', value=0.5)])
    assert [c.stream.voice.config.hop for c in node._connections.values()] == [0.5]


def test_an_invalid_topic_name_is_reported_in_one_line(graph, capfd):
    node = graph.make(EmotionNode, device='cpu', audio_topic='audio stamped')
    assert node.failed
    assert_logs_only(graph, capfd, "audio_topic 'audio stamped'")


def test_sound_that_waits_at_a_deactivation_is_counted_as_skipped(graph, publisher):
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    for _ in range(60):
        publisher.play(bytes(2 * SAMPLE_RATE), block_frames=SAMPLE_RATE)
    graph.wait(lambda: node.diagnose().values['blocks'] >= 30, 'sound')
    graph.run(node.trigger_deactivate)
    values = node.diagnose().values
    assert values['skipped seconds'] > 0
    processed = values['samples'] / SAMPLE_RATE
    assert processed + values['skipped seconds'] == pytest.approx(values['seconds'])


def test_an_error_of_the_worker_is_reported_with_the_way_to_restart(graph, managed):
    managed.change(Transition.TRANSITION_CONFIGURE)
    fail_in(managed, 'work', OSError('the device failed'))
    assert managed.change(Transition.TRANSITION_ACTIVATE)
    graph.wait(lambda: managed.state() == State.PRIMARY_STATE_UNCONFIGURED, 'the error state')
    report = managed.diagnose()
    assert report.level == DiagnosticStatus.ERROR
    assert 'OSError: the device failed' in report.message
    assert f'ros2 lifecycle set /{managed.get_name()} configure' in report.message
    assert not managed.failed
    assert managed.change(Transition.TRANSITION_CONFIGURE)
    assert managed.change(Transition.TRANSITION_ACTIVATE)
    assert managed.diagnose().level != DiagnosticStatus.ERROR


def test_an_error_while_sound_is_received_is_one_of_the_node(graph, monkeypatch):
    def fail(*_):
        raise OSError('no queue')

    node = graph.make(EmotionNode, autostart=False, device='cpu')
    for trigger in (node.trigger_configure, node.trigger_activate):
        assert graph.run(trigger) == TransitionCallbackReturn.SUCCESS
    monkeypatch.setattr(BlockQueue, 'put', fail)
    publisher = AudioPublisher(graph)
    publisher.wait_for_subscriber()
    publisher.publish_block(bytes(640))
    graph.wait(lambda: node.diagnose().level == Level.ERROR, 'the error')
    assert 'OSError: no queue' in node.diagnose().message
    graph.wait(
        lambda: graph.state_of('emotion_node') == State.PRIMARY_STATE_UNCONFIGURED, 'its end'
    )


def test_a_hundred_life_cycles_leak_no_memory(graph, managed):
    def run_cycles(times):
        for _ in range(times):
            for trigger in (
                managed.trigger_configure,
                managed.trigger_activate,
                managed.trigger_deactivate,
                managed.trigger_cleanup,
            ):
                assert graph.run(trigger) == TransitionCallbackReturn.SUCCESS
        gc.collect()
        return resident_megabytes()

    before = run_cycles(10)
    # Less than a tenth of a megabyte each is noise: other tests have run in this process.
    assert run_cycles(100) - before < 10.0


@pytest.mark.parametrize('node_class', [AudioCaptureNode, EmotionNode])
def test_a_destroyed_node_leaves_the_graph(graph, node_class):
    node = graph.make(node_class, autostart=False)
    name, names = node.get_name(), graph.node.get_node_names
    graph.wait(lambda: name in names(), 'its name in the graph')
    graph.remove(node)
    graph.wait(lambda: name not in names(), 'its end')


def test_the_end_of_a_problem_is_logged_once(graph, capfd):
    node = graph.make(EmotionNode, device='cpu', autostart=False)
    reports = [
        Report(Level.WARN, 'it clips 3 times'),
        Report(Level.WARN, 'it clips 4 times'),
        Report(Level.OK, 'listening'),
        Report(Level.OK, 'listening'),
    ]
    graph.run(lambda: [node._log(report) for report in reports])
    lines = capfd.readouterr().err.splitlines()
    over = [line for line in lines if 'this is over' in line]
    assert len(over) == 1
    assert 'listening; this is over: it clips 3 times' in over[0]
