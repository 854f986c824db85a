"""Speech that is not addressed to the robot sounds as from a television, or as of many people."""

import numpy as np
import pytest
import soundfile
from scipy.signal import welch

from ser_ros import SerError
from ser_ros.audio.reading import DEFAULT_READING
from ser_ros.training.evaluation.background import N_VOICES, babble, background, television


@pytest.fixture
def speech():
    """Ten seconds of noise at a low level."""
    return 0.05 * np.random.default_rng(1).standard_normal(160_000).astype(np.float32)


def _level(samples):
    return np.sqrt(np.mean(samples**2))


def test_a_television_keeps_the_level_and_has_the_band_of_its_loudspeaker(speech):
    played = television(speech, np.random.default_rng(2))
    assert (played.shape, played.dtype) == (speech.shape, np.float32)
    assert _level(played) == pytest.approx(_level(speech), rel=1e-3)
    frequency, power = welch(played, 16_000, nperseg=1024)
    inside = power[(frequency > 1_000) & (frequency < 4_000)].mean()
    assert power[frequency < 60].mean() < inside / 30
    assert power[frequency > 7_700].mean() < inside / 3
    assert np.array_equal(played, television(speech, np.random.default_rng(2)))
    assert not np.array_equal(played, television(speech, np.random.default_rng(3)))


def test_babble_is_several_voices_of_one_level():
    """Each is a tone here, so that all are found in the spectrum."""
    tones = iter(
        np.sin(2 * np.pi * f * np.arange(12_000) / 16_000) for f in (400, 800, 1600, 3200)
    )
    own = 0.1 * np.sin(2 * np.pi * 200 * np.arange(48_000) / 16_000)
    mixture = babble(own, np.random.default_rng(1), lambda rng: next(tones))
    assert _level(mixture) == pytest.approx(_level(own), rel=1e-3)
    frequency, power = welch(mixture, 16_000, nperseg=8_000)
    found = [power[np.argmin(np.abs(frequency - f))] for f in (200, 400, 800, 1600, 3200)]
    assert max(found) < 1.5 * min(found)
    assert next(tones, None) is None


@pytest.mark.parametrize('name', ['television', 'babble'])
@pytest.mark.parametrize('n', [1, 4_000])
def test_any_file_will_do(tmp_path, name, n):
    """Silence, a few samples, and a folder with a file that is no sound."""
    for number in range(N_VOICES):
        soundfile.write(tmp_path / f'{number}.wav', np.zeros(n), 16_000)
    (tmp_path / '9.wav').write_text('no sound')
    paths = sorted(tmp_path.iterdir())
    degrade = background(name, paths, DEFAULT_READING)
    changed = degrade(np.zeros(n, np.float32), np.random.default_rng(1))
    assert changed.shape == (n,)
    assert np.isfinite(changed).all()


def test_babble_needs_several_files(tmp_path):
    with pytest.raises(SerError, match='babble needs 5'):
        background('babble', [tmp_path / '1.wav'], DEFAULT_READING)
