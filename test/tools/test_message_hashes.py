"""The restated messages are the released ones: same type hash, same constants."""

from importlib import import_module
from pathlib import Path

import pytest

DEFINITIONS = Path(__file__).resolve().parents[2] / 'tools' / 'ros_messages'

RELEASED = {
    'audio_common_msgs': {
        'AudioData': 'a9742fba1567e649bbdba6ae034a72c7ef129b97c7a4da50fd2f3e1bfd8ffa86',
        'AudioDataStamped': '6fc679d5a868ed68e4d301f1ef42abecc86140afb57d255656ff2d9e476ea9e3',
        'AudioInfo': 'b3494d204e513d2cceefae1888e5be3da7c8c8ca31eb277f7b5b62f364bcb1fb',
    },
    'hri_msgs': {
        'Expression': '411b88e0604397d44775d8ec6a4bc69398fb0dfbfe864c33a40fa99ee85f1b00',
        'IdsList': '7e0812d1ac945c98fd3e393568d581ad0ab567f37b24eff633eab778c1bfe62d',
    },
    'vision_msgs': {
        'Classification': 'f74db28d0eaef3afb78f48bf2161cd709a1383a0309d3454383b25be11345143',
        'ObjectHypothesis': '51da43cec11c01957a64d1e05a24acd18aae7745ec30b74348ad5f6d634f7f90',
    },
}
HASHES = [
    pytest.param(package, message, f'RIHS01_{digest}', id=f'{package}/{message}')
    for package, messages in RELEASED.items()
    for message, digest in messages.items()
]

# Type hashes do not cover constants.
EXPRESSIONS = (
    'NEUTRAL',
    'ANGRY',
    'SAD',
    'HAPPY',
    'SURPRISED',
    'DISGUSTED',
    'SCARED',
    'PLEADING',
    'VULNERABLE',
    'DESPAIRED',
    'GUILTY',
    'DISAPPOINTED',
    'EMBARRASSED',
    'HORRIFIED',
    'SKEPTICAL',
    'ANNOYED',
    'FURIOUS',
    'SUSPICIOUS',
    'REJECTED',
    'BORED',
    'TIRED',
    'ASLEEP',
    'CONFUSED',
    'AMAZED',
    'EXCITED',
)


def test_every_definition_has_a_known_hash():
    restated = {(path.parents[1].name, path.stem) for path in DEFINITIONS.glob('*/msg/*.msg')}
    assert restated == {(package, name) for package in RELEASED for name in RELEASED[package]}


@pytest.fixture(scope='module')
def typestore():
    """Read the definitions with an implementation that shares no code with ROS."""
    typesys = pytest.importorskip('rosbags.typesys')
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    for path in DEFINITIONS.glob('*/msg/*.msg'):
        name = f'{path.parents[1].name}/msg/{path.stem}'
        store.register(typesys.get_types_from_msg(path.read_text(), name))
    return store


@pytest.mark.parametrize(('package', 'message', 'expected'), HASHES)
def test_definition_hash(typestore, package, message, expected):
    assert typestore.hash_rihs01(f'{package}/msg/{message}') == expected


def test_definition_constants(typestore):
    constants, _ = typestore.fielddefs['hri_msgs/msg/Expression']
    assert [(name, value) for name, _, value in constants] == [
        (name, name.lower()) for name in EXPRESSIONS
    ]


@pytest.fixture(scope='module')
def announced_hash():
    """Return a function from a message class to the hash that a publisher of it announces."""
    rclpy = pytest.importorskip('rclpy')
    patch = pytest.MonkeyPatch()
    patch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=77)
    node = rclpy.create_node('message_hashes', context=context)

    def announced(message):
        topic = message.__name__.lower()
        publisher = node.create_publisher(message, topic, 1)
        (endpoint,) = node.get_publishers_info_by_topic(f'/{topic}')
        node.destroy_publisher(publisher)
        if not hasattr(endpoint, 'topic_type_hash'):
            pytest.skip('this ROS 2 has no type hashes')
        return str(endpoint.topic_type_hash)

    yield announced
    node.destroy_node()
    rclpy.shutdown(context=context)
    patch.undo()


@pytest.mark.parametrize(('package', 'message', 'expected'), HASHES)
def test_built_hash(announced_hash, package, message, expected):
    assert announced_hash(getattr(import_module(f'{package}.msg'), message)) == expected


def test_built_constants():
    messages = pytest.importorskip('hri_msgs.msg')
    built = [getattr(messages.Expression, name) for name in EXPRESSIONS]
    assert built == [name.lower() for name in EXPRESSIONS]
