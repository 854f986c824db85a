"""Every transition and its failure, again and again."""

import gc

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from feeding import PATIENT, SPEECH, logged  # noqa: E402
from lifecycle_msgs.msg import State, Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from ser_ros import SerError  # noqa: E402
from ser_ros.audio import SAMPLE_RATE  # noqa: E402
from ser_ros.nodes.audio_capture_node import AudioCaptureNode  # noqa: E402
from ser_ros.nodes.diagnostics import resident_megabytes  # noqa: E402
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
    """A node that waits for a manager, and a function that asks for transitions."""
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
    """Have one step of the node fail once."""

    def fail():
        delattr(node, step)
        raise error

    setattr(node, step, fail)


def test_a_manager_takes_it_through_its_life(managed):
    for transition, state in CYCLE:
        assert managed.change(transition)
        assert managed.state() == state
    assert managed.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert managed.state() == State.PRIMARY_STATE_FINALIZED


@pytest.mark.parametrize('shutdown', ['inactive', 'active'])
def test_it_is_shut_down_from_wherever_it_is(managed, shutdown):
    managed.change(Transition.TRANSITION_CONFIGURE)
    if shutdown == 'active':
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
@pytest.mark.parametrize('is_expected', [True, False], ids=['refusal', 'surprise'])
def test_what_fails_can_be_tried_again(managed, capfd, step, before, transition, is_expected):
    if step == 'start':
        assert managed.change(Transition.TRANSITION_CONFIGURE)
    fail_in(
        managed, step, SerError('not today') if is_expected else ZeroDivisionError('not today')
    )
    assert not managed.change(transition)
    assert 'not today' in capfd.readouterr().err
    # What nobody expected leaves nothing of what was configured.
    expected = before if is_expected else State.PRIMARY_STATE_UNCONFIGURED
    assert managed.state() == expected
    if expected == State.PRIMARY_STATE_UNCONFIGURED:
        assert managed.change(Transition.TRANSITION_CONFIGURE)
    if managed.state() == State.PRIMARY_STATE_INACTIVE:
        assert managed.change(Transition.TRANSITION_ACTIVATE)
    assert managed.state() == State.PRIMARY_STATE_ACTIVE


@pytest.mark.parametrize('step', ['stop', 'after_stop', 'teardown'])
def test_what_fails_on_the_way_out_is_said(managed, step):
    """And the rest is done all the same: rclpy itself would say nothing and go on."""
    done = getattr(managed, step)

    def fail():
        delattr(managed, step)
        done()
        raise ZeroDivisionError('not today')

    managed.change(Transition.TRANSITION_CONFIGURE)
    managed.change(Transition.TRANSITION_ACTIVATE)
    setattr(managed, step, fail)
    is_well = managed.change(Transition.TRANSITION_DEACTIVATE)
    if step == 'teardown':
        assert is_well
        is_well = managed.change(Transition.TRANSITION_CLEANUP)
    assert not is_well
    assert managed.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert managed.diagnose().level == DiagnosticStatus.ERROR
    assert 'ZeroDivisionError: not today' in managed.diagnose().message
    for transition, state in CYCLE:
        assert managed.change(transition)
        assert managed.state() == state


@pytest.mark.parametrize('step', ['after_stop', 'teardown'])
def test_what_fails_in_a_shutdown_is_said(managed, capfd, step):
    managed.change(Transition.TRANSITION_CONFIGURE)
    managed.change(Transition.TRANSITION_ACTIVATE)
    fail_in(managed, step, ZeroDivisionError('not today'))
    assert managed.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert managed.state() == State.PRIMARY_STATE_FINALIZED
    assert 'ZeroDivisionError: not today' in capfd.readouterr().err


def test_a_start_that_fails_half_way_leaves_nothing(graph):
    node = graph.make(EmotionNode, device='cpu', autostart=False, ros4hri=True)

    def fail(*_, **__):
        del node._connect
        raise ZeroDivisionError('not today')

    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    n_before = len(list(node.subscriptions))
    node._connect = fail
    assert node.trigger_activate() == TransitionCallbackReturn.ERROR
    assert len(list(node.subscriptions)) == n_before
    assert graph.state_of('emotion_node') == State.PRIMARY_STATE_UNCONFIGURED
    graph.wait(lambda: not graph.node.count_publishers('/humans/voices/tracked'), 'silence')
    node.trigger_configure()
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    node.set_parameters([Parameter('hop', value=0.5)])
    assert [c.stream.voice.config.hop for c in node._connections.values()] == [0.5]


def test_a_topic_that_cannot_be_is_one_line(graph, capfd):
    node = graph.make(EmotionNode, device='cpu', audio_topic='audio stamped')
    assert node.failed
    assert logged(graph, capfd, "audio_topic 'audio stamped'")


def test_sound_that_waits_is_counted_when_the_node_is_put_to_rest(graph, publisher):
    node = graph.make(EmotionNode, **PATIENT)
    publisher.wait_for_listener(node)
    publisher.announce()
    for _ in range(60):
        publisher.play(bytes(2 * SAMPLE_RATE), block_frames=SAMPLE_RATE)
    graph.wait(lambda: node.diagnose().values['blocks'] >= 30, 'sound')
    node.trigger_deactivate()
    values = node.diagnose().values
    assert values['skipped seconds'] > 0
    heard = values['samples'] / SAMPLE_RATE
    assert heard + values['skipped seconds'] == pytest.approx(values['seconds'])


def test_what_ends_its_work_is_an_error_that_says_how_to_come_back(graph, managed):
    managed.change(Transition.TRANSITION_CONFIGURE)
    fail_in(managed, 'work', OSError('the sound is on fire'))
    assert managed.change(Transition.TRANSITION_ACTIVATE)
    graph.wait(lambda: managed.state() == State.PRIMARY_STATE_UNCONFIGURED, 'the error state')
    report = managed.diagnose()
    assert report.level == DiagnosticStatus.ERROR
    assert 'OSError: the sound is on fire' in report.message
    assert f'ros2 lifecycle set /{managed.get_name()} configure' in report.message
    assert not managed.failed
    assert managed.change(Transition.TRANSITION_CONFIGURE)
    assert managed.change(Transition.TRANSITION_ACTIVATE)
    assert managed.diagnose().level != DiagnosticStatus.ERROR


def test_a_hundred_lives_cost_no_memory(managed):
    def live(times):
        for _ in range(times):
            for trigger in (
                managed.trigger_configure,
                managed.trigger_activate,
                managed.trigger_deactivate,
                managed.trigger_cleanup,
            ):
                assert trigger() == TransitionCallbackReturn.SUCCESS
        gc.collect()
        return resident_megabytes()

    before = live(10)
    assert live(100) - before < 5.0
