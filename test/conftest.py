"""What the tests share; nothing here needs ROS."""

import dataclasses
import itertools
import os
import signal
from pathlib import Path

# Before torch is loaded here, and in the processes that tests start: more tests run than there are
# processors, so that the threads of one operation would wait for each other.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import settings
from virtual_microphone import VirtualMicrophone, missing_packages

from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.vad import CHUNK, Segmenter, SileroVad
from ser_ros.bundle import load_bundle, save_bundle
from ser_ros.bundle_info import AdaptationInfo, BundleInfo
from ser_ros.emotions import EMOTIONS
from ser_ros.features import build_frontend
from ser_ros.frontend_config import LogMelConfig
from ser_ros.models import build_model

ROOT = Path(__file__).resolve().parents[1]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell ignores it in the background, and so would the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Every run tries the same examples, so that a test fails for everybody or for nobody.
settings.register_profile('repeatable', derandomize=True, deadline=None, database=None)
settings.load_profile('repeatable')

RAVDESS_CODES = range(1, 9)


def pytest_addoption(parser):
    parser.addoption(
        '--backend',
        choices=('auto', 'onnx', 'torch'),
        default='auto',
        help='what the emotion nodes of the tests run their bundles with (default auto)',
    )


def pytest_collection_modifyitems(items):
    # What takes minutes first: if one process still had it when the others have ended, all would wait.
    slow = {'test_export.py', 'tools', 'training'}
    items.sort(key=lambda item: not slow & {*item.path.parts})


def pytest_xdist_auto_num_workers():
    # Two more than there are processors: the tests of nodes often wait for a clock.
    return (os.cpu_count() or 1) + 2


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    """Results of small models do not get faster with more threads, only less repeatable."""
    torch.set_num_threads(1)


@pytest.fixture(scope='session')
def short_evaluations():
    """Evaluate two sounds without a voice, one held out, report three clips: all take a minute.

    A report's plots take seconds: each kind of them is drawn once.
    """
    from ser_ros.training.evaluation import rejection
    from ser_ros.training.reports import html

    draw, drawn = html._plot, {}

    def draw_once(title, alt, figure):
        if title not in drawn:
            drawn[title] = draw(title, alt, figure)
        return {**drawn[title], 'alt': alt}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, '_plot', draw_once)
        patch.setattr(html, 'N_HARDEST', 3)
        patch.setattr(rejection, 'N_SOUNDS', 1)
        patch.setattr(rejection, 'FAMILIES', rejection.FAMILIES[:1])
        yield


@pytest.fixture(scope='session')
def root():
    """The checkout."""
    return ROOT


@pytest.fixture(scope='session')
def speech_path():
    """Synthesised speech, mono at 16 kHz: several utterances with pauses between."""
    return ROOT / 'examples' / 'speech.flac'


@pytest.fixture(scope='session')
def speech(speech_path):
    samples, rate = soundfile.read(speech_path, dtype='float32')
    assert rate == SAMPLE_RATE
    assert samples.ndim == 1
    return samples


@pytest.fixture(scope='session')
def segments(speech):
    """The utterances in it: what the recogniser's default settings cut."""
    vad, segmenter, found = SileroVad(), Segmenter(0.5, SAMPLE_RATE // 2), []
    for start in range(0, len(speech) - CHUNK + 1, CHUNK):
        closed = segmenter.push(vad(speech[start : start + CHUNK]))
        found += [closed] if closed else []
    assert len(found) >= 3
    return found


@pytest.fixture(scope='session')
def utterance(speech, segments):
    """The longest utterance, between half a second and a second of silence."""
    longest = max(segments, key=lambda segment: segment.end - segment.start)
    spoken = speech[longest.start : longest.end]
    assert len(spoken) > 3 * SAMPLE_RATE
    return np.concatenate((np.zeros(8_000, np.float32), spoken, np.zeros(16_000, np.float32)))


def _tones(frequencies, seconds_each):
    """A melody on a plucked string: five harmonics that die away."""
    n = round(seconds_each * SAMPLE_RATE)
    phase = np.cumsum(np.repeat(frequencies, n)) * 2 * np.pi / SAMPLE_RATE
    decay = np.tile(np.exp(-np.arange(n) / (0.4 * n)), len(frequencies))
    return decay * sum(np.sin(k * phase) / k for k in range(1, 6))


@pytest.fixture(scope='session')
def not_speech():
    """Name → ten seconds of sound in which nobody speaks."""
    time = np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE
    noise = np.random.default_rng(1).standard_normal(len(time))
    scale = [262, 294, 330, 349, 392, 440, 494, 523]
    sounds = {
        'silence': np.zeros(len(time)),
        'white noise': 0.1 * noise,
        'mains hum': sum(0.2 / k * np.sin(2 * np.pi * 50 * k * time) for k in (1, 2, 3, 5)),
        'melody': 0.2 * _tones(scale + scale[::-1] + scale[:4], 0.5),
    }
    return {name: sound.astype(np.float32) for name, sound in sounds.items()}


@pytest.fixture(scope='session')
def bundle_info():
    """What an untrained bundle says of itself."""
    return BundleInfo(
        architecture='parallel_cnn_transformer',
        hyperparameters={'conv_dropout': 0.2},
        frontend=LogMelConfig(),
        class_names=tuple(EMOTIONS),
        window=3.0,
        temperature=1.5,
        threshold=0.25,
        corpora={'RAVDESS': {'train': ['02', '04'], 'validation': ['03'], 'test': ['01', '11']}},
        recipe={'seed': 7},
        seed=7,
        metrics={},
        license='CC-BY-NC-SA-4.0',
        recordings=(),
        calibration='the validation set',
        adaptation=AdaptationInfo(),
    )


@pytest.fixture(scope='session')
def untrained_frontend():
    """A function: settings → the front-end with statistics as of speech."""

    def build(config):
        frontend = build_frontend(config)
        # In decibels, or of the channels of a network.
        mean, std = (0.1, 0.02) if frontend.is_pooled else (-50.0, 16.0)
        shape = frontend.mean.shape
        return build_frontend(config, torch.full(shape, mean), torch.full(shape, std))

    return build


@pytest.fixture(scope='session')
def write_bundle(bundle_info, untrained_frontend):
    """A function that writes an untrained bundle whose decisions are far from even."""

    def write(path, **changes):
        info = dataclasses.replace(bundle_info, **changes)
        frontend = untrained_frontend(info.frontend)
        torch.manual_seed(7)
        model = build_model(
            info.architecture,
            frontend.n_features,
            len(info.class_names),
            **info.hyperparameters,
        )
        with torch.no_grad():
            model.classifier.weight *= 8
        save_bundle(path, info, frontend, model)
        return path

    return write


@pytest.fixture(scope='session')
def bundle_path(write_bundle, tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp('bundle') / 'untrained.safetensors')


@pytest.fixture(scope='session')
def bundle(bundle_path):
    return load_bundle(bundle_path)


@pytest.fixture(scope='session')
def by_voice_path(write_bundle, tmp_path_factory):
    """An untrained bundle that adapts to voices."""
    return write_bundle(
        tmp_path_factory.mktemp('by_voice') / 'by_voice.safetensors',
        architecture='perceptron',
        hyperparameters={},
        frontend=LogMelConfig(),
        adaptation=AdaptationInfo(by_voice=True, memory=2.0, neutral_share=0.3),
    )


@pytest.fixture(scope='session')
def by_voice(by_voice_path):
    return load_bundle(by_voice_path)


@pytest.fixture(scope='session')
def by_answers(write_bundle, tmp_path_factory):
    """An untrained bundle that adapts to voices by its answers alone."""
    path = write_bundle(
        tmp_path_factory.mktemp('by_answers') / 'by_answers.safetensors',
        adaptation=AdaptationInfo(by_answers=True, memory=2.0, neutral_share=0.3),
    )
    return load_bundle(path)


@pytest.fixture(scope='session')
def ravdess():
    """RAVDESS itself, where the variable SER_CORPORA says it is."""
    root = Path(os.environ.get('SER_CORPORA', ''), 'ravdess')
    if 'SER_CORPORA' not in os.environ or not root.is_dir():
        pytest.skip('needs RAVDESS: SER_CORPORA names no folder that holds ravdess/')
    return root


@pytest.fixture(scope='session')
def tiny_corpus(speech, segments, tmp_path_factory):
    """Files named as RAVDESS's, of one voice, each with noise of its own: enough to train on."""
    folder = tmp_path_factory.mktemp('corpus')
    pieces = [speech[s.start : s.start + 17_600] for s in segments]
    pieces = [piece for piece in pieces if len(piece) == 17_600]
    edge = np.zeros(4_000, np.float32)
    for actor in ('01', '02', '03', '04', '11', '20', '21'):
        (folder / f'Actor_{actor}').mkdir()
        for code in RAVDESS_CODES if actor in ('02', '03', '04', '21') else (1, 3, 5):
            piece = pieces[(code + int(actor)) % len(pieces)] * np.float32(0.5 + code / 16)
            sound = np.concatenate((edge, piece, edge))
            noise = np.random.default_rng((code, int(actor))).standard_normal(len(sound))
            soundfile.write(
                folder / f'Actor_{actor}' / f'03-01-{code:02}-01-01-01-{actor}.wav',
                sound + 1e-3 * noise,
                SAMPLE_RATE,
            )
    return folder


@pytest.fixture(scope='session')
def own_corpus(tiny_corpus, tmp_path_factory):
    """A user's clips, a folder for each of three emotions, four speakers, each clip different."""
    folder = tmp_path_factory.mktemp('own') / 'mine'
    samples, rate = soundfile.read(next(tiny_corpus.rglob('*-21.wav')))
    for number, emotion in enumerate(('calm', 'happy', 'sad')):
        (folder / emotion).mkdir(parents=True)
        for speaker in ('ann', 'bob', 'cem', 'dua'):
            noise = np.random.default_rng((number, ord(speaker[0]))).standard_normal(len(samples))
            soundfile.write(folder / emotion / f'{speaker}_1.wav', samples + 1e-3 * noise, rate)
    return folder


@pytest.fixture(scope='session')
def cache(tmp_path_factory):
    """A folder in which clips of the tests stand decoded."""
    return tmp_path_factory.mktemp('cache')


_domains = itertools.count(os.getpid())


@pytest.fixture
def domain_id():
    """A ROS domain that no other test uses at the same time; above 100 ports may be in use."""
    n_workers = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 1))
    worker = int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw'))
    n_domains = 100 // n_workers
    return 1 + worker * n_domains + next(_domains) % n_domains


@pytest.fixture
def virtual_microphone(tmp_path):
    if missing := missing_packages():
        pytest.skip(f'needs a virtual microphone: apt install {" ".join(missing)}')
    microphone = VirtualMicrophone(tmp_path)
    yield microphone
    microphone.close()
