"""A source that is recognised in this process."""

import numpy as np
import pytest
import soundfile

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.sources import FileSource
from ser_ros.backends import load_backend
from ser_ros.view.live import LiveSession
from ser_ros.view.model import Model


@pytest.fixture
def session(root):
    source = FileSource(root / 'examples' / 'demo.flac', speed=1_000.0)
    model = Model(keep_audio=60.0)
    model.is_watched = True
    session = LiveSession(source, load_backend(device='cpu'), model)
    source.open()
    return session, model


def lane_of(model):
    return model.frame_and_snapshot()[1]['lanes']['']


def test_it_is_heard_recognised_and_kept(session):
    session, model = session
    session.run()
    session.report()
    lane = lane_of(model)
    expressions = [u['expression'] for u in lane['utterances']]
    assert expressions == ['neutral', 'happy', 'angry', 'sad', None, None]
    assert lane['sound']
    assert model.sound_of('', 2)
    assert model.missing() == []


def test_paused_it_is_heard_but_not_recognised(session):
    session, model = session
    assert session.commands['enable'](False).result() == (True, 'not listening')
    session.run()
    lane = lane_of(model)
    assert lane['sound']
    assert not lane['windows']
    with pytest.raises(SerError, match='true or false'):
        session.commands['enable']('yes')


def test_a_reset_forgets_the_sound_too(session):
    session, model = session
    session.run()
    session.commands['reset'](None)
    assert model.sound_of('', 2) is None
    assert not lane_of(model)['utterances']


def test_a_silent_microphone_is_named(tmp_path):
    path = tmp_path / 'zeros.wav'
    soundfile.write(path, np.zeros(4 * SAMPLE_RATE), SAMPLE_RATE)
    source, model = FileSource(path, speed=1_000.0), Model()
    session = LiveSession(source, load_backend(device='cpu'), model)
    model.is_watched = True
    source.open()
    session.run()
    session.report()
    assert 'muted' in model.missing()[0]
