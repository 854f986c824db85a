"""Parameters as users give them: integers for floats, misspelt names, keys that match no node."""

import pytest

from ser_ros.nodes.given_parameters import as_declared, unknown_parameters, unused_keys


@pytest.mark.parametrize(
    ('value', 'default', 'expected'),
    [
        (1, 0.25, 1.0),
        (-1, -1.0, -1.0),
        (16_000.0, 0, 16_000),
        (1.5, 1, 1.5),  # not an integer: rclpy refuses it
        (True, 1.0, True),
        (True, 1, True),
        ('1', 1.0, '1'),
        (1, 'text', 1),
        (False, 'voice', 'off'),
        (False, True, False),
    ],
)
def test_a_number_has_the_type_of_its_default(value, default, expected):
    result = as_declared(value, default)
    assert result == expected
    assert type(result) is type(expected)


def test_an_unknown_parameter_is_named_with_the_nearest():
    known = ['threshold', 'hop', 'device']
    (sentence,) = unknown_parameters(['treshold', 'hop', 'use_sim_time'], known)
    assert "'treshold' is unknown" in sentence
    assert "did you mean 'threshold'?" in sentence


def test_parameters_of_the_other_node_and_of_ros_are_not_doubted():
    given = ['source', 'bundle', 'qos_overrides./parameter_events.publisher.depth']
    assert not unknown_parameters(given, ['bundle'])


KEYS = {
    'a misspelt name': ('emotion_nod', '/emotion_node', True),
    'a name cut off': ('/**/emotion', '/emotion_node', True),
    'the package': ('ser_emotion_node', '/emotion_node', True),
    'no namespace': ('emotion_node', '/robot/emotion_node', True),
    'another namespace': ('/robots/emotion_node', '/robot/emotion_node', True),
    'one part too few': ('/*/emotion_node', '/emotion_node', True),
    'the name': ('emotion_node', '/emotion_node', False),
    'any namespace': ('/**/emotion_node', '/a/b/emotion_node', False),
    'one part': ('/*/emotion_node', '/robot/emotion_node', False),
    'everything': ('/**', '/robot/emotion_node', False),
    'the other node': ('/**/audio_capture_node', '/emotion_node', False),
    'the other node, misspelt': ('/**/audio_capture', '/emotion_node', False),
    'a foreign node': ('/**/camera', '/emotion_node', False),
}


@pytest.mark.parametrize(('key', 'node', 'is_doubted'), KEYS.values(), ids=KEYS)
def test_a_key_that_matches_no_node_is_doubted(tmp_path, key, node, is_doubted):
    path = tmp_path / 'mine.yaml'
    path.write_text(f'{key}: {{ros__parameters: {{hop: 0.5}}}}\n')
    sentences = unused_keys(['--ros-args', '--params-file', str(path)], node)
    assert bool(sentences) == is_doubted
    if is_doubted:
        assert "did you mean '/**/emotion_node'?" in sentences[0]
        assert str(path) in sentences[0]


def test_a_file_that_names_the_node_may_name_similar_ones(tmp_path):
    path = tmp_path / 'robot.yaml'
    path.write_text(
        'robot:\n  emotion_node: {ros__parameters: {hop: 0.5}}\n'
        '  motion_node: {ros__parameters: {speed: 1}}\n'
    )
    assert not unused_keys(['--params-file', str(path)], '/robot/emotion_node')


def test_a_parameter_of_the_command_line_is_doubted_as_well():
    arguments = ['--ros-args', '-p', 'emotion_nod:hop:=0.5', '-p', 'emotion_node:hop:=0.5']
    (sentence,) = unused_keys(arguments, '/emotion_node')
    assert 'emotion_nod:hop' in sentence


@pytest.mark.parametrize('text', ['', '- a', ': {', 'emotion_nod: 5', '1: {2: {}}'])
def test_any_file_can_be_read(tmp_path, text):
    path = tmp_path / 'odd.yaml'
    path.write_text(text)
    assert unused_keys(['--params-file', str(path)], '/emotion_node') == []
