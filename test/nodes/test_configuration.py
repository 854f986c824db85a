"""config/ser.yaml lists every parameter with its default, and applies in any namespace."""

from pathlib import Path

import pytest
import yaml

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from ser_ros.nodes.audio_capture_node import AudioCaptureNode  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402

CONFIG = Path(__file__).parents[2] / 'config' / 'ser.yaml'
NODES = {'audio_capture_node': AudioCaptureNode, 'emotion_node': EmotionNode}
# Declared by rclpy itself.
FOREIGN = ('use_sim_time', 'start_type_description_service')


@pytest.mark.parametrize('name', NODES)
def test_every_parameter_is_listed_with_its_default(graph, name):
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
def test_the_file_applies_in_any_namespace(graph, tmp_path, name, namespace):
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


def test_the_readme_lists_them():
    listed = {}
    node = None
    for line in (CONFIG.parents[1] / 'README.md').read_text().splitlines():
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if len(cells) == 4 and cells[1].startswith('`'):
            node = cells[0] or node
            names = NODES if node == 'both' else [node]
            for name in names:
                listed.setdefault(name, {})[cells[1].strip('` *')] = yaml.safe_load(
                    cells[2].strip('`')
                )
    configured = yaml.safe_load(CONFIG.read_text())
    for name in NODES:
        assert listed[name] == configured[f'/**/{name}']['ros__parameters']
