"""The SROS 2 policies allow what the nodes do, and nothing else."""

import fnmatch
import xml.etree.ElementTree as ElementTree

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from feeding import SPEECH  # noqa: E402
from hri_msgs.msg import IdsList  # noqa: E402
from looking import look  # noqa: E402

from ser_ros.nodes.audio_capture_node import AudioCaptureNode  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import TRANSIENT_LOCAL  # noqa: E402
from ser_ros.nodes.view_node import ViewNode  # noqa: E402


def allowed(root, process):
    """Node → kind of access → the full names that the policy of a process allows."""
    tree = ElementTree.parse(root / 'config' / 'sros2' / f'{process}.policy.xml')
    (enclave,) = tree.getroot().iter('enclave')
    assert enclave.get('path') == f'/ser_ros/{process}'
    rules = {}
    for profile in enclave.iter('profile'):
        assert profile.get('ns') == '/'
        name = profile.get('node')
        found = rules[name] = {}
        for block in profile:
            ((access, verdict),) = block.attrib.items()
            assert verdict == 'ALLOW'
            names = [element.text.replace('~/', f'/{name}/') for element in block]
            found[access] = {n if n.startswith('/') else f'/{n}' for n in names}
    return rules


def test_the_policy_of_one_process_allows_what_those_of_both_nodes_allow(root):
    """It includes them, and sros2 resolves that when it reads a policy."""
    folder = root / 'config' / 'sros2'
    policy = ElementTree.parse(folder / 'ser.policy.xml').getroot()
    assert policy.find('./enclaves/enclave').get('path') == '/ser_ros/ser'
    included = policy.findall('.//{http://www.w3.org/2001/XInclude}include')
    assert {element.get('xpointer') for element in included} == {'xpointer(//profile)'}
    others = {'audio_capture_node.policy.xml', 'emotion_node.policy.xml'}
    assert {element.get('href') for element in included} == others


def used(graph, name):
    """Kind of access → the names that the node uses now, as another node discovers them."""
    node = graph.node
    if name not in node.get_node_names():  # not discovered yet, or not any more
        return {access: set() for access in ('publish', 'subscribe', 'reply', 'request')}
    return {
        'publish': {n for n, _ in node.get_publisher_names_and_types_by_node(name, '/')},
        'subscribe': {n for n, _ in node.get_subscriber_names_and_types_by_node(name, '/')},
        'reply': {n for n, _ in node.get_service_names_and_types_by_node(name, '/')},
        'request': {n for n, _ in node.get_client_names_and_types_by_node(name, '/')},
    }


def check(rules, found, is_all):
    for access, names in found.items():
        for name in names:
            allows = rules.get(access, ())
            assert any(fnmatch.fnmatchcase(name, rule) for rule in allows), (access, name)
    if is_all:
        unused = {
            access: {r for r in patterns if not fnmatch.filter(found[access], r)}
            for access, patterns in rules.items()
        }
        assert not any(unused.values()), unused


def test_the_capture_node_does_what_its_policy_allows(graph, root):
    graph.make(
        AudioCaptureNode,
        source='file',
        file=str(SPEECH),
        publish_unstamped=True,
        use_sim_time=True,
    )
    (rules,) = allowed(root, 'audio_capture_node').values()
    graph.wait(lambda: '/audio' in used(graph, 'audio_capture_node')['publish'], 'discovery')
    graph.wait(lambda: used(graph, 'audio_capture_node')['reply'], 'discovery')
    check(rules, used(graph, 'audio_capture_node'), is_all=True)


def test_the_emotion_node_does_what_its_policy_allows(graph, root):
    rules = allowed(root, 'emotion_node')
    found = {name: {} for name in rules}
    assert list(found) == ['emotion_node', 'emotion_node_sound']

    def find():
        for name, accesses in found.items():
            for access, names in used(graph, name).items():
                accesses.setdefault(access, set()).update(names)

    for ros4hri in (False, True):
        node = graph.make(EmotionNode, device='cpu', ros4hri=ros4hri, use_sim_time=True)
        topic = '/humans/voices/tracked' if ros4hri else '/is_speaking'
        graph.wait(lambda: topic in used(graph, 'emotion_node')['publish'], 'discovery')  # noqa: B023
        graph.wait(lambda: used(graph, 'emotion_node')['reply'], 'discovery')
        find()
        sound = '/humans/voices/anna/audio' if ros4hri else '/audio_stamped'
        if ros4hri:
            tracked = graph.node.create_publisher(IdsList, topic, TRANSIENT_LOCAL)
            tracked.publish(IdsList(ids=['anna']))
        graph.wait(lambda: sound in used(graph, 'emotion_node_sound')['subscribe'], 'subscription')  # noqa: B023
        find()
        graph.remove(node)
    for name in rules:
        check(rules[name], found[name], is_all=True)


def test_the_view_node_does_what_its_policy_allows(graph, root):
    rules = allowed(root, 'view_node')
    found = {name: {} for name in rules}
    assert list(found) == ['view_node', 'view_node_sound']

    def find():
        for name, accesses in found.items():
            for access, names in used(graph, name).items():
                accesses.setdefault(access, set()).update(names)

    for ros4hri in (False, True):
        node = graph.make(ViewNode, port=0, ros4hri=ros4hri, use_sim_time=True)
        topic = '/humans/voices/tracked' if ros4hri else '/emotion'
        graph.wait(lambda: topic in used(graph, 'view_node')['subscribe'], 'discovery')  # noqa: B023
        graph.wait(lambda: used(graph, 'view_node')['reply'], 'discovery')
        graph.wait(lambda: used(graph, 'view_node')['request'], 'discovery')
        with look(node.address):
            sound = '/humans/voices/anna/audio' if ros4hri else '/audio_stamped'
            if ros4hri:
                tracked = graph.node.create_publisher(IdsList, topic, TRANSIENT_LOCAL)
                tracked.publish(IdsList(ids=['anna', 'ben']))
            graph.wait(
                lambda: sound in used(graph, 'view_node_sound')['subscribe'],  # noqa: B023
                'subscription',
            )
            find()
        graph.remove(node)
    for name in rules:
        check(rules[name], found[name], is_all=True)
