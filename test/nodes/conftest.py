"""A ROS graph in this process: real nodes, real middleware, a domain of its own per test."""

import os
import threading
import time

import pytest

# Set before the middleware starts, so that no message leaves this machine.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from discovery import have_matched  # noqa: E402
from feeding import AudioPublisher  # noqa: E402
from hri_msgs.msg import Expression  # noqa: E402
from lifecycle_msgs.srv import GetState  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rig import SpinThread  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from vision_msgs.msg import Classification  # noqa: E402

from ser_ros.audio import pace  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import TRANSIENT_LOCAL  # noqa: E402

SOUND_THREAD = '_sound'
"""How the name of an emotion node's `SubscriptionThread` ends."""


@pytest.fixture
def endless_patience(monkeypatch):
    """What a test does within an utterance is within it on a slow machine, too."""
    monkeypatch.setattr(pace, 'REPLAY_PATIENCE', 60.0)
    monkeypatch.setattr(pace, 'LIVE_PATIENCE', 60.0)


@pytest.fixture
def held_out_clip(ravdess):
    """A clip of a test speaker: the shipped bundle was neither trained nor selected on it."""
    return ravdess / 'Actor_11' / '03-01-05-02-01-01-11.flac'


class Graph:
    """Nodes that one thread spins, and a node that receives their messages."""

    def __init__(self, domain_id, backend):
        self._backend = backend
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._nodes = []
        self._received = threading.Condition()
        self.node = self.add(rclpy.create_node('test', context=self.context))
        self._thread = SpinThread(self._executor)
        self._thread.start()

    def add(self, node):
        self._nodes.append(node)
        self._executor.add_node(node)
        return node

    def make(self, cls, namespace='', **parameters):
        """Create one of our nodes; with the parameter `autostart` false it stays unconfigured.

        An emotion node has the option `--backend` unless the parameters say another.
        """
        if issubclass(cls, EmotionNode) and self._backend != 'auto':
            parameters = {'backend': self._backend, **parameters}
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = cls(context=self.context, namespace=namespace, parameter_overrides=overrides)
        node.autostart()
        return self.add(node)

    def run(self, function):
        """Call a function in the thread that spins the nodes, as a service's callback is called."""
        return self._thread.call(function)

    def only_in_its_thread(self, destroy):
        """A method of nodes that destroys what the thread may use, refused to other threads.

        The thread ends with an InvalidHandle, once in many runs.
        """

        def checked(node, entity):
            if node in self._nodes and self._thread.is_alive():
                assert threading.current_thread() is self._thread, 'destroy it by graph.run'
            return destroy(node, entity)

        return checked

    def remove(self, node):
        """Destroy a node that `make` created: at once, so that another may have its name.

        The middleware takes the topics of two nodes of one name for those of the first.
        """
        self._executor.remove_node(node)
        self._nodes.remove(node)
        self.run(node.destroy_node)

    def destroy(self, publisher):
        """Destroy a publisher of any of the nodes."""
        (node,) = (n for n in self._nodes if publisher in n.publishers)
        self.run(lambda: node.destroy_publisher(publisher))

    def subscribe(self, message_type, topic, qos=100):
        """Subscribe; returns a list to which every message is appended."""
        messages = []

        def receive(message):
            with self._received:
                messages.append(message)
                self._received.notify_all()

        self.node.create_subscription(message_type, topic, receive, qos)
        return messages

    def state_of(self, name):
        """The id of a lifecycle node's state, requested by its service as a manager would."""
        client = self.node.create_client(GetState, f'{name}/get_state')
        assert client.wait_for_service(20.0)
        answer = client.call_async(GetState.Request())
        self.wait(answer.done, f'an answer of {name}')
        return answer.result().current_state.id

    def wait(self, condition, what, timeout=20.0):
        deadline = time.monotonic() + timeout
        with self._received:
            while not condition():
                left = deadline - time.monotonic()
                assert left > 0, f'waited {timeout} s without success for: {what}'
                # No message announces that some conditions hold, for example those of discovery.
                self._received.wait(min(left, 0.05))

    def wait_for_subscriber(self, publisher, timeout=20.0):
        """Wait until it has one, and all nodes of this graph have found each other."""
        self.wait(
            lambda: publisher.get_subscription_count() and have_matched(self._nodes),
            'discovery',
            timeout,
        )

    def close(self):
        self._thread.stop()
        for node in self._nodes:
            node.destroy_node()
        rclpy.shutdown(context=self.context)
        # A later test in this domain would count what these threads subscribe to.
        left = [t.name for t in threading.enumerate() if t.name.endswith(SOUND_THREAD)]
        assert not left, f'threads that still subscribe: {left}'


@pytest.fixture
def graph(domain_id, pytestconfig, monkeypatch):
    graph = Graph(domain_id, pytestconfig.getoption('--backend'))
    for name in ('destroy_publisher', 'destroy_subscription'):
        monkeypatch.setattr(Node, name, graph.only_in_its_thread(getattr(Node, name)))
    yield graph
    graph.close()


@pytest.fixture
def outputs(graph):
    return {
        'emotion': graph.subscribe(Expression, 'emotion'),
        'utterance': graph.subscribe(Expression, 'emotion/utterance'),
        'probabilities': graph.subscribe(Classification, 'emotion/probabilities'),
        'is_speaking': graph.subscribe(Bool, 'is_speaking', TRANSIENT_LOCAL),
    }


@pytest.fixture
def publisher(graph):
    return AudioPublisher(graph)
