"""All voices and nodes together, with a clock that the test advances."""

import json

import numpy as np
import pytest

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.backends import load_backend
from ser_ros.stream.recognizer import Recognizer
from ser_ros.view.lane import Decision
from ser_ros.view.model import GRACE, MAX_LANES, SILENT_NODE, SILENT_SOUND, Model, Topics

SOUND = Topics('/robot/audio_stamped', '/robot/audio_info')


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def model(clock):
    model = Model(keep_audio=10.0, nodes=('emotion_node',), clock=clock)
    model.set_lanes({'': SOUND})
    model.is_watched = True
    return model


def test_what_is_missing_has_its_topic_and_its_reason(model, clock):
    assert model.missing() == []
    clock.now += GRACE + 0.1
    assert model.missing() == [
        'no sound on /robot/audio_stamped yet',
        'no /diagnostics of emotion_node yet',
    ]
    model.set_reasons({'': 'nobody publishes there'})
    assert model.missing()[0] == 'no sound on /robot/audio_stamped yet: nobody publishes there'
    model.set_reasons({})
    model.add_sound('', np.zeros(160, np.float32), SECOND)
    model.add_status('emotion_node', 0, 'listening', {'bundle': 'x'})
    assert model.missing() == []
    clock.now += SILENT_SOUND + 0.5
    assert model.missing() == ['no sound on /robot/audio_stamped for 2 s']
    clock.now += SILENT_NODE
    assert model.missing()[1] == 'emotion_node has said nothing for 4 s'


def test_nobody_speaks_whose_recogniser_is_silent(clock):
    """It was killed within an utterance, and sound still comes."""
    model = Model(nodes=('emotion_node', 'other'), clock=clock, recogniser='emotion_node')
    model.set_lanes({'': SOUND})
    model.is_watched = True
    for name in ('emotion_node', 'other'):
        model.add_status(name, 0, 'listening', {})
    model.add_sound('', np.zeros(16_000, np.float32), SECOND)
    model.set_speaking('', True)
    model.add_window('', 2.0, {'happy': 1.0})
    clock.now += SILENT_NODE - 0.1
    model.add_status('other', 0, 'listening', {})
    assert model.frame()['lanes']['']['speaking']
    clock.now += 0.2
    lane = model.frame()['lanes']['']
    assert not lane['speaking']
    assert lane['speech'][-1] == [2.0, False]
    model.set_speaking('', True)
    model.add_status('emotion_node', 0, 'listening', {})
    assert model.frame()['lanes']['']['speaking']


def test_what_was_not_subscribed_to_is_not_missing(model, clock):
    clock.now += 10
    model.is_watched = False
    clock.now += 100
    model.is_watched = True
    assert model.missing() == []


def test_statuses_of_other_nodes_are_ignored(model):
    model.add_status('motors', 2, 'hot', {})
    model.add_status('emotion_node', 1, 'm' * 1_000, {f'{n}': 'v' * 1_000 for n in range(200)})
    (node,) = model.status()['nodes']
    assert (node['name'], node['level']) == ('emotion_node', 'warn')
    assert len(json.dumps(node)) < 30_000


def test_frames_have_what_is_new_and_snapshots_all(model):
    model.add_window('', 10.0, {'happy': 1.0})
    first = model.frame()
    assert first['lanes']['']['windows'] == [[10.0, [1.0]]]
    assert 'windows' not in model.frame()['lanes']['']
    model.add_window('', 11.0, {'happy': 1.0})
    frame, snapshot = model.frame_and_snapshot()
    assert frame['lanes']['']['windows'] == [[11.0, [1.0]]]
    assert snapshot['lanes']['']['windows'] == [[10.0, [1.0]], [11.0, [1.0]]]
    assert 'windows' not in model.frame()['lanes']['']


def test_voices_come_and_go(model):
    model.set_lanes({'anna': Topics('/humans/voices/anna/audio'), 'ben': Topics('/b')})
    model.add_window('anna', 1.0, {'sad': 1.0})
    model.add_window('', 1.0, {'sad': 1.0})
    assert list(model.frame()['lanes']) == ['anna', 'ben']
    model.set_lanes({'ben': Topics('/b')})
    assert list(model.status()['lanes']) == ['ben']
    model.set_lanes({str(n): SOUND for n in range(1_000)})
    assert len(model.status()['lanes']) == MAX_LANES


def test_forgetting_leaves_no_sound(model):
    model.add_sound('', np.zeros(SAMPLE_RATE, np.float32), 0)
    model.set_speaking('', True)
    model.add_sound('', np.zeros(SAMPLE_RATE, np.float32), SECOND)
    model.add_decision('', Decision(1.8, 'sad', 0.9, -0.5, -0.5), is_utterance=True)
    assert model.sound_of('', 1) is not None
    assert model.sound_of('other', 1) is None
    model.forget()
    assert model.sound_of('', 1) is None
    assert model.frame_and_snapshot()[1]['lanes']['']['utterances'] == []


def test_a_recogniser_in_the_process_fills_it(utterance):
    model = Model(is_recording=True)
    model.set_lanes({'': Topics()})
    recognizer = Recognizer(load_backend(device='cpu'))
    estimates = recognizer.push(utterance, 0) + recognizer.flush()
    for estimate in estimates:
        model.add_estimate('', estimate, recognizer.info.class_names)
    lane = model.frame_and_snapshot()[1]['lanes']['']
    assert len(lane['windows']) == sum(e.is_window for e in estimates)
    assert len(lane['utterances']) == 1
    assert [d['expression'] for d in lane['decisions']] == [
        e.expression for e in estimates if not e.is_final
    ]
    assert model.missing() == []
