"""Bags, written and read without ROS."""

import numpy as np
import pytest
from rosbags import rosbag2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.formats import encode_s16le
from ser_ros.audio.sources import read_audio
from ser_ros.backends import load_backend
from ser_ros.view.bag import is_bag, of_bag

START = 1_700_000_000 * SECOND
BLOCK = 1_600
NAMES = {
    'AudioDataStamped': 'audio_common_msgs',
    'AudioInfo': 'audio_common_msgs',
    'AudioData': 'audio_common_msgs',
    'Expression': 'hri_msgs',
    'Classification': 'vision_msgs',
    'Bool': 'std_msgs',
}


@pytest.fixture(scope='module')
def backend():
    return load_backend(device='cpu')


@pytest.fixture(scope='module')
def store(root):
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {}
    for package in ('audio_common_msgs', 'hri_msgs', 'vision_msgs'):
        for path in (root / 'tools' / 'ros_messages' / package).rglob('*.msg'):
            types |= get_types_from_msg(path.read_text(), f'{package}/msg/{path.stem}')
    store.register({k: v for k, v in types.items() if k not in store.fielddefs})
    return store


@pytest.fixture(scope='module')
def samples(root):
    return read_audio(root / 'examples' / 'demo.flac')[: 6 * SAMPLE_RATE]


class Bag:
    """Writes messages."""

    def __init__(self, path, store):
        self._store = store
        self._writer = rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP)
        self._connections = {}

    def __enter__(self):
        self._writer.open()
        return self

    def __exit__(self, *_):
        self._writer.close()

    def write(self, topic, kind, at, **values):
        name = f'{NAMES[kind]}/msg/{kind}'
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, name, typestore=self._store
            )
        message = self._store.types[name](**values)
        data = self._store.serialize_cdr(message, name)
        self._writer.write(self._connections[topic], round(START + at * SECOND), data)

    def header(self, at):
        stamp_ns = round(START + at * SECOND)
        time = self._store.types['builtin_interfaces/msg/Time'](
            sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND
        )
        return self._store.types['std_msgs/msg/Header'](stamp=time, frame_id='mic')

    def sound(self, samples, topic='/audio_stamped', info='/audio_info'):
        self.write(
            info,
            'AudioInfo',
            0.0,
            channels=1,
            sample_rate=SAMPLE_RATE,
            sample_format='S16LE',
            bitrate=0,
            coding_format='wave',
        )
        for first in range(0, len(samples), BLOCK):
            at = first / SAMPLE_RATE
            data = np.frombuffer(encode_s16le(samples[first : first + BLOCK]), np.uint8)
            audio = self._store.types['audio_common_msgs/msg/AudioData'](data=data)
            self.write(topic, 'AudioDataStamped', at, header=self.header(at), audio=audio)

    def expression(self, topic, at, expression):
        values = {'valence': -0.5, 'arousal': 0.25, 'confidence': 0.75}
        self.write(
            topic, 'Expression', at, header=self.header(at), expression=expression, **values
        )

    def window(self, topic, at, **scores):
        hypothesis = self._store.types['vision_msgs/msg/ObjectHypothesis']
        results = [hypothesis(class_id=n, score=s) for n, s in scores.items()]
        self.write(topic, 'Classification', at, header=self.header(at), results=results)


def lanes_of(recording):
    return recording.model.frame_and_snapshot()[1]['lanes']


def test_sound_alone_is_recognised(tmp_path, store, samples, backend):
    with Bag(tmp_path / 'bag', store) as bag:
        bag.sound(samples)
    assert is_bag(tmp_path / 'bag')
    recording = of_bag(tmp_path / 'bag', backend)
    (lane,) = lanes_of(recording).values()
    assert [u['expression'] for u in lane['utterances']][:2] == ['neutral', 'happy']
    np.testing.assert_allclose(recording.samples, samples, atol=1e-4)
    assert recording.start_ns == START
    (file,) = (tmp_path / 'bag').glob('*.mcap')
    assert of_bag(file, backend).duration == recording.duration == pytest.approx(6.0)


def test_what_was_published_is_shown_as_it_was(tmp_path, store, samples, backend):
    with Bag(tmp_path / 'bag', store) as bag:
        bag.sound(samples)
        bag.write('/is_speaking', 'Bool', 1.0, data=True)
        bag.expression('/emotion', 2.0, 'scared')
        bag.window('/emotion/probabilities', 2.0, fearful=0.75, sad=0.25)
        bag.window('/emotion/probabilities', 2.25, fearful=0.5, sad=0.5)
        bag.write('/is_speaking', 'Bool', 2.8, data=False)
        bag.expression('/emotion/utterance', 2.5, 'scared')
    (lane,) = lanes_of(of_bag(tmp_path / 'bag', backend)).values()
    assert [d['expression'] for d in lane['decisions']] == ['scared', None]
    (utterance,) = lane['utterances']
    assert (utterance['expression'], utterance['confidence']) == ('scared', 0.75)
    assert [said for _, said in lane['speech']] == [True, False]
    (anew,) = lanes_of(of_bag(tmp_path / 'bag', backend, anew=True)).values()
    assert [u['expression'] for u in anew['utterances']][:2] == ['neutral', 'happy']


def test_a_remapped_topic_of_sound_is_that_of_the_one_voice(tmp_path, store, samples, backend):
    with Bag(tmp_path / 'bag', store) as bag:
        bag.sound(samples, '/mic/sound', '/mic/audio_info')
        bag.window('/robot/emotion/probabilities', 2.0, happy=1.0)
    recording = of_bag(tmp_path / 'bag', backend)
    assert list(lanes_of(recording)) == ['robot']
    assert len(recording.samples) == len(samples)


def test_each_voice_of_ros4hri_has_a_lane(tmp_path, store, backend):
    with Bag(tmp_path / 'bag', store) as bag:
        for name in ('anna', 'ben'):
            bag.window(f'/humans/voices/{name}/probabilities', 1.0, happy=1.0)
            bag.expression(f'/humans/voices/{name}/expression', 1.0, 'happy')
    recording = of_bag(tmp_path / 'bag', backend)
    assert set(lanes_of(recording)) == {'anna', 'ben'}
    assert not recording.about('/recording')['sound']


def test_a_bag_without_any_of_it_or_a_broken_one_is_one_line(tmp_path, store, backend):
    with Bag(tmp_path / 'bag', store) as bag:
        bag.write('/lamp', 'Bool', 0.0, data=True)
    with pytest.raises(SerError, match='no sound'):
        of_bag(tmp_path / 'bag', backend)
    (tmp_path / 'broken.mcap').write_bytes(b'\x89MCAP0\r\n' + bytes(100))
    for path in (tmp_path / 'broken.mcap', tmp_path / 'missing.mcap', tmp_path):
        with pytest.raises(SerError, match='bag') as error:
            of_bag(path, backend)
        assert '\n' not in str(error.value)
