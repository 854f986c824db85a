"""The front-end against librosa, and what a stream needs of it."""

import dataclasses

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ser_ros.features import LogMel, LogMelConfig

CONFIGS = {
    'default': LogMelConfig(),
    'window as long as the transform': LogMelConfig(win_length=512),
    '80 mels up to 7.6 kHz': LogMelConfig(n_mels=80, f_min=20.0, f_max=7_600.0),
    '48 kHz': LogMelConfig(48_000, 1024, 512, 256, 128, 0.0, 24_000.0, -80.0),
}


def librosa_decibels(samples, config):
    power = librosa.feature.melspectrogram(
        y=samples,
        sr=config.sample_rate,
        n_fft=config.n_fft,
        win_length=config.win_length,
        hop_length=config.hop_length,
        n_mels=config.n_mels,
        fmin=config.f_min,
        fmax=config.f_max,
        center=False,
    )
    floor = 10 ** (config.floor_db / 10)
    return librosa.power_to_db(power, ref=1.0, amin=floor, top_db=None)


@pytest.mark.parametrize('config', CONFIGS.values(), ids=CONFIGS)
def test_decibels_are_those_of_librosa(speech, config):
    samples = speech[: 3 * 16_000]
    expected = librosa_decibels(samples, config)
    decibels = LogMel(config).decibels(torch.from_numpy(samples)).numpy()
    assert np.ptp(expected) > 50
    np.testing.assert_allclose(decibels, expected, atol=1e-3)


def test_standardised_by_the_statistics_of_training(speech):
    config = LogMelConfig()
    mean = np.linspace(-60, -40, config.n_mels)
    std = np.linspace(10, 20, config.n_mels)
    waveform = torch.from_numpy(speech[:16_000])
    features = LogMel(config, mean.tolist(), std.tolist())(waveform).numpy()
    expected = (LogMel(config).decibels(waveform).numpy() - mean[:, None]) / std[:, None]
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_silence_stays_at_the_floor_beside_loud_sound():
    frontend = LogMel(LogMelConfig())
    samples = torch.zeros(16_000)
    samples[8_000:] = torch.sin(torch.arange(8_000) / 3)
    decibels = frontend.decibels(samples)
    n_silent = frontend.n_frames(8_000)
    assert (decibels[:, :n_silent] == frontend.config.floor_db).all()
    assert decibels.max() > frontend.config.floor_db + 60


def test_gain_is_an_offset(speech):
    frontend = LogMel(LogMelConfig(floor_db=-200.0))
    waveform = torch.from_numpy(speech[8_000:24_000])
    difference = frontend.decibels(waveform) - frontend.decibels(waveform / 10)
    np.testing.assert_allclose(difference, 20.0, atol=1e-2)


def test_a_frame_is_made_of_its_own_samples_only():
    frontend = LogMel(LogMelConfig())
    config = frontend.config
    generator = torch.Generator().manual_seed(1)
    samples = torch.randn(8_000, generator=generator)
    whole = frontend(samples)
    frame = 20
    start = frame * config.hop_length
    others = torch.randn(8_000, generator=generator)
    others[start : start + config.n_fft] = samples[start : start + config.n_fft]
    torch.testing.assert_close(frontend(others)[:, frame], whole[:, frame])
    assert not torch.equal(frontend(others)[:, frame + 4], whole[:, frame + 4])


@given(st.integers(0, 3_000))
def test_frames_are_counted_as_they_are_computed(n_samples):
    frontend = LogMel(LogMelConfig())
    n_frames = frontend.n_frames(n_samples)
    if n_samples < frontend.config.n_fft:
        assert n_frames == 0
    else:
        features = frontend(torch.zeros(2, n_samples))
        assert features.shape == (2, frontend.config.n_mels, n_frames)


def test_settings_survive_as_plain_values():
    config = LogMelConfig(n_mels=80)
    assert LogMelConfig(**dataclasses.asdict(config)) == config
