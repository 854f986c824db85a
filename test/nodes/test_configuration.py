"""config/ser.yaml has every parameter, and the manual every topic and diagnostic value."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from estimates import make_estimate
from pages import names_in, table

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from feeding import SPEECH  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from ser_ros.audio.block_queue import BlockCounters  # noqa: E402
from ser_ros.nodes.audio_capture_node import AudioCaptureNode  # noqa: E402
from ser_ros.nodes.diagnostics import counter_values  # noqa: E402
from ser_ros.nodes.emotion_diagnostics import EmotionDiagnostics, NodeStatus  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.publishers import Topics  # noqa: E402
from ser_ros.nodes.subscriptions import SubscriptionCounters  # noqa: E402
from ser_ros.nodes.view_node import ViewNode  # noqa: E402
from ser_ros.stream.types import StreamCounters  # noqa: E402

CONFIG = Path(__file__).parents[2] / 'config' / 'ser.yaml'
NODES = {
    'audio_capture_node': AudioCaptureNode,
    'emotion_node': EmotionNode,
    'view_node': ViewNode,
}
SETTINGS = {
    'audio_capture_node': {'source': 'file', 'file': str(SPEECH), 'publish_unstamped': True},
    'emotion_node': {'device': 'cpu'},
    'view_node': {'port': 0},
}
# Declared by rclpy itself.
FOREIGN = ('use_sim_time', 'start_type_description_service')


@pytest.mark.parametrize('name', NODES)
def test_every_parameter_is_there_with_its_default(graph, name, pytestconfig):
    if pytestconfig.getoption('--backend') != 'auto':
        pytest.skip('the option --backend replaces a default')
    node = graph.make(NODES[name], autostart=False)
    listed = yaml.safe_load(CONFIG.read_text())[f'/**/{name}']['ros__parameters']
    declared = {
        parameter: node.get_parameter(parameter).value
        for parameter in node.list_parameters([], 0).names
        if parameter not in FOREIGN
    }
    assert listed == {**declared, 'autostart': True}
    for parameter in declared:
        assert node.describe_parameter(parameter).description


@pytest.mark.parametrize('namespace', ['', 'robot', 'robot/head'])
@pytest.mark.parametrize('name', NODES)
def test_the_keys_match_in_any_namespace(graph, tmp_path, name, namespace):
    changed = CONFIG.read_text().replace('autostart: true', 'autostart: false')
    path = tmp_path / 'ser.yaml'
    path.write_text(changed)
    node = NODES[name](
        context=graph.context,
        namespace=namespace,
        cli_args=['--ros-args', '--params-file', str(path)],
    )
    graph.add(node)
    assert node.value('autostart') is False


GIVEN = """
/**/emotion_node:
  ros__parameters: {hop: 1, max_backlog: 7, sample_rate: 8000.0, treshold: 0.5, adaptation: off, autostart: false}
/**/audio_capture_node:
  ros__parameters: {speed: 2, block_duration: 1, chanels: 1, autostart: false}
"""


@pytest.mark.parametrize(
    ('name', 'values', 'doubt'),
    [
        (
            'emotion_node',
            {'hop': 1.0, 'max_backlog': 7.0, 'sample_rate': 8000, 'adaptation': 'off'},
            'threshold',
        ),
        ('audio_capture_node', {'speed': 2.0, 'block_duration': 1.0}, 'channels'),
    ],
)
def test_a_file_of_a_user_is_taken_as_it_is_meant(graph, tmp_path, capfd, name, values, doubt):
    path = tmp_path / 'mine.yaml'
    path.write_text(GIVEN)
    arguments = ['--ros-args', '--params-file', str(path)]
    node = graph.add(NODES[name](context=graph.context, cli_args=arguments))
    for parameter, value in values.items():
        assert node.value(parameter) == value
        assert type(node.value(parameter)) is type(value)
    assert f'did you mean {doubt!r}?' in capfd.readouterr().err


def test_no_namespace_means_that_of_the_node(graph):
    arguments = ['--ros-args', '-p', 'namespaces:=[]', '-p', 'autostart:=false']
    node = graph.add(EmotionNode(context=graph.context, cli_args=arguments))
    assert node.value('namespaces') == ['']
    assert node.set_parameters([Parameter('namespaces', value=['one'])])[0].successful
    assert node.set_parameters([Parameter('namespaces', value=[])])[0].successful
    assert node.value('namespaces') == ['']


def test_a_running_node_takes_an_integer_for_a_float(graph):
    node = graph.make(EmotionNode, autostart=False)
    assert node.set_parameters([Parameter('hop', value=2)])[0].successful
    assert node.value('hop') == 2.0
    assert not node.set_parameters([Parameter('hop', value=100)])[0].successful
    assert not node.set_parameters([Parameter('hop', value='fast')])[0].successful
    assert not node.set_parameters([Parameter('hop', value=True)])[0].successful


def topics_listed(node):
    """Name → type, of the page's rows for a node."""
    rows = table('nodes.md', 'node', 'topic', 'type', 'QoS', 'meaning')
    return {
        row[1].strip('`'): row[2].strip('`').replace('/', '/msg/')
        for row in rows
        if row[0] in (node, 'all')
    }


@pytest.mark.parametrize('name', NODES)
def test_the_manual_lists_the_topics(graph, name):
    graph.make(NODES[name], **SETTINGS[name])
    foreign = {'/rosout', '/parameter_events', f'/{name}/transition_event'}

    def published():
        found = graph.node.get_publisher_names_and_types_by_node(name, '/')
        return {topic: types[0] for topic, types in found if topic not in foreign}

    listed = {f'/{topic.lstrip("/")}': kind for topic, kind in topics_listed(name).items()}
    graph.wait(lambda: len(published()) >= len(listed), 'discovery')
    assert published() == listed


def test_the_manual_names_the_topics_as_the_publishers_do():
    assert set(dataclasses.asdict(Topics()).values()) <= topics_listed('emotion_node').keys()


def values_listed(after):
    rows = table('failures.md', 'value', 'meaning', after=after)
    return [name for row in rows for name in names_in(row[0])]


def test_the_manual_explains_every_value_of_the_capture_node(graph):
    node = graph.make(AudioCaptureNode, source='file', file=str(SPEECH), autostart=False)
    graph.run(node.trigger_configure)
    listed = values_listed('Values of the capture node')
    assert sorted(listed) == sorted([*node.report().values, 'memory MB'])


def test_the_manual_explains_every_value_of_the_emotion_node(graph):
    node = graph.make(EmotionNode, device='cpu', autostart=False)
    graph.run(node.trigger_configure)
    # What is there only after an estimate, and what counts the sound of a voice.
    diagnostics = EmotionDiagnostics()
    diagnostics.add_estimate(make_estimate(), 0.1)
    later = diagnostics.report(NodeStatus(voices=(), real_time_factor=0.1)).values
    counters = [
        counter_values(cls()) for cls in (BlockCounters, StreamCounters, SubscriptionCounters)
    ]
    known = {*node.report().values, *later, *(name for c in counters for name in c)}
    listed = values_listed('Values of the emotion node')
    assert sorted(listed) == sorted({*known, 'memory MB', 'GPU memory MB'})
