"""Conditions change sound as their names say, always in the same way."""

import json

import numpy as np
import pytest
import soundfile

from ser_ros import SerError
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation import conditions
from ser_ros.training.evaluation.batches import BatchPredictor, predict_with
from ser_ros.training.evaluation.conditions import (
    Conditions,
    evaluate_conditions,
    read_conditions,
)
from ser_ros.training.evaluation.metrics import compute_metrics
from ser_ros.training.evaluation.prediction import amplify, predict_clips
from ser_ros.workers import ThisProcess

RATE = 16_000


def tone(frequency, seconds):
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)


@pytest.fixture(scope='module')
def noise_folder(tmp_path_factory):
    """Two recordings that only a training uses, and one of two pieces: tones of 3 and 5 kHz."""
    folder = tmp_path_factory.mktemp('noise')
    for name, frequency in {'a': 1_000, 'b': 1_000, 'c_0_0': 3_000, 'c_0_1': 5_000}.items():
        soundfile.write(folder / f'{name}.wav', 0.1 * tone(frequency, 1), RATE)
    return folder


@pytest.fixture(scope='module')
def every(noise_folder):
    return read_conditions(noise_folder)


@pytest.fixture(scope='module')
def apply(every):
    """A function: name of a condition, samples, seed → the samples that a robot receives."""

    def degrade(name, samples, seed=1):
        return every.degrades[name](samples, np.random.default_rng(seed))

    return degrade


def level_db(samples):
    return 10 * np.log10(np.mean(np.square(samples)))


def band_db(samples, low, high):
    """Level of the part between two frequencies in Hz."""
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    power = np.abs(spectrum[(frequencies >= low) & (frequencies < high)]) ** 2
    return 10 * np.log10(2 * power.sum() / len(samples) ** 2 + 1e-20)


def test_the_conditions_are_named_and_the_same_every_time(every, apply, utterance):
    assert list(every.degrades) == [
        *('noise, SNR 20 dB', 'noise, SNR 10 dB', 'noise, SNR 5 dB', 'noise, SNR 0 dB'),
        *('near in a room, 0.5 m', 'far in a room, 3 m', 'telephone, 8 kHz'),
        *('Opus, 11 kbit/s', 'MP3, 26 kbit/s', 'gain +20 dB', 'gain -20 dB'),
    ]
    seen = []
    for name in every.degrades:
        samples = apply(name, utterance)
        assert samples.shape == utterance.shape
        assert samples.dtype == np.float32
        np.testing.assert_array_equal(samples, apply(name, utterance))
        seen.append(samples)
    for index, samples in enumerate(seen):
        assert not any(np.array_equal(samples, other) for other in [utterance, *seen[:index]])


@pytest.mark.parametrize('snr', [20, 10, 5, 0])
def test_noise_has_its_level_relative_to_the_speech(apply, utterance, snr):
    """An utterance between silences, which do not count."""
    added = apply(f'noise, SNR {snr} dB', utterance) - utterance
    spoken = utterance[8_000:-16_000]
    assert level_db(spoken) - level_db(added) == pytest.approx(snr, abs=0.3)
    # There is noise where there was silence.
    assert level_db(added[:8_000]) == pytest.approx(level_db(added), abs=0.1)


def test_noise_comes_from_recordings_that_no_training_uses(apply, utterance):
    added = [apply('noise, SNR 0 dB', utterance, seed) - utterance for seed in range(8)]
    loudest = [
        max((1_000, 3_000, 5_000), key=lambda f: band_db(sound, f - 50, f + 50)) for sound in added
    ]
    assert set(loudest) == {3_000, 5_000}
    # Under every SNR a clip gets the same stretch of the same recording.
    other = apply('noise, SNR 20 dB', utterance, 0) - utterance
    np.testing.assert_allclose(10 * other, added[0], atol=1e-5)


def test_loud_noise_does_not_exceed_full_scale(apply, utterance):
    loud = utterance / np.abs(utterance).max()
    assert np.abs(apply('noise, SNR 0 dB', loud)).max() == pytest.approx(1)


def test_a_room_resounds_more_from_afar(apply):
    click = np.zeros(RATE, np.float32)
    click[1_000] = 0.5
    shares = {}
    for name in ('near in a room, 0.5 m', 'far in a room, 3 m'):
        sound = apply(name, click)
        assert level_db(sound) == pytest.approx(level_db(click), abs=0.1)
        (first,) = np.flatnonzero(np.abs(sound) > 0.3 * np.abs(sound).max())[:1]
        direct = np.square(sound[first - 20 : first + 20]).sum()
        shares[name] = 10 * np.log10(direct / (np.square(sound).sum() - direct))
        # Schroeder's backward integration, from 5 to 25 dB below.
        decay = np.cumsum(np.square(sound[first:])[::-1])[::-1]
        level = 10 * np.log10(decay / decay[0])
        start, end = (np.flatnonzero(level < db)[0] for db in (-5, -25))
        assert 3 * (end - start) / RATE == pytest.approx(0.6, abs=0.2)
    near, far = shares.values()
    assert near - far > 6


def test_a_telephone_has_no_low_and_no_high_frequencies(apply):
    mixture = sum(tone(f, 1) for f in (100, 1_000, 6_000)).astype(np.float32) / 4
    sound = apply('telephone, 8 kHz', mixture)
    before, after = (
        [band_db(s, f - 20, f + 20) for f in (100, 1_000, 6_000)] for s in (mixture, sound)
    )
    assert after[1] == pytest.approx(before[1], abs=1)
    assert after[0] < before[0] - 20
    assert after[2] < before[2] - 40


@pytest.mark.parametrize('name', ['Opus, 11 kbit/s', 'MP3, 26 kbit/s'])
def test_codecs_lose_something_but_neither_time_nor_level(apply, utterance, name):
    sound = apply(name, utterance)
    spectra = [np.fft.rfft(s, 2 * len(utterance)) for s in (sound, utterance)]
    correlation = np.fft.irfft(spectra[0] * spectra[1].conj())
    assert abs((correlation.argmax() + 500) % len(correlation) - 500) <= 2
    assert level_db(sound) == pytest.approx(level_db(utterance), abs=1.5)
    assert level_db(sound - utterance) > level_db(utterance) - 25


@pytest.mark.parametrize(('name', 'rate'), [('Opus, 11 kbit/s', 11), ('MP3, 26 kbit/s', 26)])
def test_codecs_have_the_bit_rate_in_their_name(speech, tmp_path, name, rate):
    soundfile.write(tmp_path / 'encoded', speech, RATE, **conditions.CODECS[name])
    kilobits = (tmp_path / 'encoded').stat().st_size * 8 / 1_000
    assert kilobits / (len(speech) / RATE) == pytest.approx(rate, rel=0.15)


def test_a_gain_amplifies(apply, utterance):
    for gain in (20, -20):
        sound = apply(f'gain {gain:+d} dB', utterance)
        assert level_db(sound) - level_db(utterance) == pytest.approx(gain, abs=1e-3)


def test_silence_stays_silence(every, apply):
    silence = np.zeros(8_000, np.float32)
    for name in every.degrades:
        # Noise has no speech that it could be relative to.
        assert np.abs(apply(name, silence)).max() < 1e-3


def test_silent_noise_is_named(tmp_path):
    for name in 'abc':
        soundfile.write(tmp_path / f'{name}.wav', np.zeros(1_000), RATE)
    with pytest.raises(SerError, match='c.wav is silent'):
        read_conditions(tmp_path)


@pytest.fixture(scope='module')
def clips(tiny_corpus):
    paths = sorted(tiny_corpus.rglob('*.wav'))[:4]
    return [Clip(p, ['sad', 'angry'][i % 2], str(i), 'SAVEE') for i, p in enumerate(paths)]


def test_each_condition_is_compared_with_the_clean_clips(bundle, clips):
    results = predict_clips(bundle, clips, 'cpu')
    names = ['sad', 'angry']
    clean = [result.restricted_to(names, bundle.info.class_names) for result in results]
    given = Conditions(
        'two gains',
        {
            'as is': lambda samples, rng: samples,
            'inaudible': lambda samples, rng: amplify(samples, rng, gain_db=-120),
        },
    )
    own = BatchPredictor(bundle.path, bundle.digest, 'cpu', degrades=given.degrades)
    predict = predict_with(ThisProcess(own.work(bundle)))
    metrics = evaluate_conditions(bundle, given, clean, names, predict)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert metrics['protocol'] == 'two gains'
    first, same, inaudible = metrics['rows'].values()
    assert list(metrics['rows']) == ['clean', 'as is', 'inaudible']
    expected = compute_metrics(clean, names)
    assert {**first, **expected} == {**expected, **first}
    assert first['accuracy_change'] is first['accuracy_change_interval'] is None
    assert same == {**first, 'accuracy_change': 0, 'accuracy_change_interval': [0, 0]}
    assert inaudible['no_speech'] == 4
    assert inaudible['unweighted_accuracy'] == 0
    assert inaudible['accuracy_change'] == -first['unweighted_accuracy']
    assert inaudible['coverage'] is None
