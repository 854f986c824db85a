"""The front-ends compared with librosa and published recipes, and in streams and batches."""

import dataclasses

import librosa
import numpy as np
import pytest
import soxr
import torch
from hypothesis import given
from hypothesis import strategies as st

from ser_ros import SerError
from ser_ros.features import (
    LogMel,
    Mfcc,
    Research,
    SpeechEncoder,
    Vggish,
    build_frontend,
    fit_frontend,
    voice_mean,
)
from ser_ros.frontend_config import (
    FrontendConfig,
    LogMelConfig,
    MfccConfig,
    ResearchConfig,
    SpeechEncoderConfig,
    VggishConfig,
)
from ser_ros.settings import from_dict

LOG_MELS = {
    'default': LogMelConfig(),
    'window as long as the transform': LogMelConfig(win_length=512),
    '80 mels up to 7.6 kHz': LogMelConfig(n_mels=80, f_min=20.0, f_max=7_600.0),
    '128 mels of 64 ms': LogMelConfig(n_mels=128, n_fft=1024, win_length=1024, f_max=8_000.0),
    '48 kHz': LogMelConfig(48_000, 1024, 512, 256, 128, 0.0, 24_000.0, -80.0),
}
MFCCS = {
    'default': MfccConfig(),
    'no deltas': MfccConfig(n_mfcc=13, deltas=0),
    'all coefficients of 40 mels, one delta': MfccConfig(n_mels=40, n_mfcc=40, deltas=1),
}
STREAMING = {
    'log_mel': LogMelConfig(),
    '128 mels of 64 ms': LOG_MELS['128 mels of 64 ms'],
    'mfcc': MfccConfig(),
    'speech_encoder': SpeechEncoderConfig(),
    'vggish': VggishConfig(),
}
EVERY = {**STREAMING, 'research': ResearchConfig(), 'short research': ResearchConfig(duration=1.0)}


def noise(*shape, seed=1):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def librosa_power(samples, config, **settings):
    return librosa.feature.melspectrogram(
        y=samples,
        sr=config.sample_rate,
        n_fft=config.n_fft,
        win_length=config.win_length,
        hop_length=config.hop_length,
        n_mels=config.n_mels,
        **settings,
    )


def librosa_decibels(samples, config):
    power = librosa_power(samples, config, fmin=config.f_min, fmax=config.f_max, center=False)
    floor = 10 ** (config.floor_db / 10)
    return librosa.power_to_db(power, ref=1.0, amin=floor, top_db=None)


@pytest.fixture(scope='module')
def studio(speech):
    """Five seconds of speech at 48 kHz, with something in every band."""
    samples = soxr.resample(speech[: 5 * 16_000], 16_000, 48_000)
    return samples + 1e-3 * noise(len(samples)).numpy()


# Against others


@pytest.mark.parametrize('config', LOG_MELS.values(), ids=LOG_MELS)
def test_decibels_are_those_of_librosa(speech, config):
    samples = speech[: 3 * 16_000]
    expected = librosa_decibels(samples, config)
    decibels = LogMel(config).spectrum(torch.from_numpy(samples)).numpy()
    assert np.ptp(expected) > 50
    np.testing.assert_allclose(decibels, expected, atol=1e-3)


@pytest.mark.parametrize('config', MFCCS.values(), ids=MFCCS)
def test_cepstral_coefficients_are_those_of_librosa(speech, config):
    samples = speech[: 3 * 16_000]
    expected = librosa.feature.mfcc(S=librosa_decibels(samples, config), n_mfcc=config.n_mfcc)
    parts = [expected]
    for _ in range(config.deltas):
        parts.append(librosa.feature.delta(parts[-1], width=5, mode='nearest'))
    frontend = Mfcc(config)
    waveform = torch.from_numpy(samples)
    np.testing.assert_allclose(frontend.spectrum(waveform).numpy(), expected, atol=1e-3)
    features = frontend(waveform).numpy()
    assert len(features) == config.n_mfcc * (1 + config.deltas)
    np.testing.assert_allclose(features, np.concatenate(parts), atol=1e-3)


@pytest.mark.parametrize('seconds', [5.0, 3.5, 2.0, 0.6])
def test_the_research_front_end_is_that_of_librosa(studio, seconds):
    config = ResearchConfig()
    samples = studio[: round(seconds * 48_000)]
    used = np.zeros(3 * 48_000, np.float32)
    part = samples[24_000 : 24_000 + len(used)]
    used[: len(part)] = part
    power = librosa_power(used, config, window='hamming', fmax=24_000)
    expected = librosa.power_to_db(power, ref=np.max, top_db=80)
    decibels = Research(config).spectrum(torch.from_numpy(samples)).numpy()
    assert decibels.shape == (128, 563)
    assert np.ptp(decibels) == 80
    np.testing.assert_allclose(decibels, expected, atol=1e-3)


def test_the_vggish_front_end_is_the_published_one(speech):
    """Computed in NumPy from the description of the recipe."""
    samples = speech[: 2 * 16_000].astype(np.float64)

    def mel(hertz):
        return 1127 * np.log(1 + np.asarray(hertz) / 700)

    starts = range(0, len(samples) - 400 + 1, 160)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.array([samples[start : start + 400] * window for start in starts])
    magnitude = np.abs(np.fft.rfft(frames, 512))
    edges = np.linspace(mel(125), mel(7_500), 66)
    bins = mel(np.arange(257) * 16_000 / 512)
    bands = []
    for low, center, high in zip(edges, edges[1:], edges[2:]):
        rising, falling = (bins - low) / (center - low), (high - bins) / (high - center)
        bands.append(np.minimum(rising, falling).clip(0))
    expected = np.log(magnitude @ np.array(bands).T + 0.01).T
    features = Vggish(VggishConfig())(torch.from_numpy(samples).float()).numpy()
    assert np.ptp(expected) > 5
    np.testing.assert_allclose(features, expected, atol=1e-3)


def clip_mean(frontend, waveform, lengths=None):
    frames, steps = (
        (None, None)
        if lengths is None
        else (frontend.n_frames(lengths), frontend.n_steps(frontend.n_frames(lengths)))
    )
    return frontend.clip_mean(frontend.features(frontend.spectrum(waveform), frames), steps)


def given_to_convolutions(frontend, samples):
    """(80, frames): the input of a speech encoder's convolutions, a fortieth of decibels."""
    given = []
    frontend.convolutions.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0][0]))
    frontend(samples)
    return given[0]


def test_a_gain_does_not_change_what_the_speech_encoder_says(speech):
    frontend, samples = SpeechEncoder(SpeechEncoderConfig()), torch.from_numpy(speech[:48_000])
    torch.testing.assert_close(frontend(0.05 * samples), frontend(samples), atol=1e-4, rtol=1e-4)


def test_the_speech_encoder_has_one_step_only():
    with pytest.raises(SerError, match='one step for a clip, and the architecture needs 16'):
        SpeechEncoder(SpeechEncoderConfig()).n_samples(16)


def test_the_speech_encoder_gets_the_mels_of_whisper(speech):
    config, samples = SpeechEncoderConfig(range_db=80.0), speech[:48_000]
    given = given_to_convolutions(SpeechEncoder(config), torch.from_numpy(samples))
    power = librosa.feature.melspectrogram(
        y=samples, sr=16_000, n_fft=400, hop_length=160, n_mels=80, center=False
    )
    logarithm = np.log10(np.maximum(power, 1e-10))
    expected = (np.maximum(logarithm, logarithm.max() - 8.0) + 4.0) / 4.0
    difference = given.numpy() - expected
    assert difference.std() < 1e-3  # but for a level of its own, which a gain does not change


def test_digital_silence_is_as_deep_as_the_range():
    config = SpeechEncoderConfig(range_db=40.0)
    given = given_to_convolutions(
        SpeechEncoder(config), torch.cat((noise(16_000), noise(16_000) * 0))
    )
    assert given.max() - given.min() == pytest.approx(config.range_db / 40, abs=1e-3)


@pytest.mark.parametrize('config', STREAMING.values(), ids=STREAMING)
def test_a_clip_mean_is_that_of_its_true_frames(config, speech):
    frontend, lengths = build_frontend(config), torch.tensor([40_000, 20_000])
    batch = torch.from_numpy(speech[:80_000]).reshape(2, -1)
    means = clip_mean(frontend, batch, lengths)
    assert means.shape == (2, frontend.n_features, 1)
    alone = clip_mean(frontend, batch[1, :20_000])
    torch.testing.assert_close(means[1], alone, atol=1e-3, rtol=1e-4)


def test_standardised_by_its_own_mean_a_voice_is_centred(speech):
    frontend = fit_frontend(LogMelConfig(), [torch.from_numpy(speech[:80_000])])
    features = frontend.features(frontend.spectrum(torch.from_numpy(speech[-48_000:])))
    own = voice_mean(frontend.mean, frontend.clip_mean(features), 1.0)
    centred = frontend.standardise(features, own).mean(dim=1)
    assert centred.abs().max() < 1e-4
    unknown = voice_mean(frontend.mean, torch.full_like(own, torch.nan), 1.0)
    assert torch.equal(unknown, frontend.mean)
    half = voice_mean(frontend.mean, own, 0.5)
    torch.testing.assert_close(half, (own + frontend.mean) / 2)


def test_coefficients_and_frames_of_the_published_lengths():
    assert Vggish(VggishConfig()).n_frames(15_600) == 96
    assert Vggish(VggishConfig()).n_frames(15_599) == 95
    assert Research(ResearchConfig()).n_frames(48_000) == 563


# What all of them hold


@pytest.mark.parametrize('config', EVERY.values(), ids=EVERY)
def test_frames_and_steps_are_counted_as_they_are_computed(config):
    frontend = build_frontend(config)

    @given(st.integers(0, 60_000 if not frontend.is_streaming else 5_000))
    def check(n_samples):
        n_frames = frontend.n_frames(n_samples)
        n_steps = frontend.n_steps(n_frames)
        several = torch.tensor([0, n_samples, n_samples + 1])
        counted = frontend.n_frames(several)
        assert counted.tolist() == [frontend.n_frames(int(n)) for n in several]
        assert frontend.n_steps(counted).tolist() == [frontend.n_steps(int(n)) for n in counted]
        if n_steps:
            waveform = torch.zeros(2, n_samples)
            assert frontend.spectrum(waveform).shape == (2, frontend.n_rows, n_frames)
            assert frontend(waveform).shape == (2, frontend.n_features, n_steps)
            least = frontend.n_samples(n_steps)
            assert frontend.n_steps(frontend.n_frames(least)) == n_steps
            assert frontend.n_steps(frontend.n_frames(least - 1)) < n_steps
            assert least <= n_samples

    check()


@pytest.mark.parametrize('config', EVERY.values(), ids=EVERY)
def test_padding_does_not_matter(config):
    frontend = build_frontend(config)
    lengths = torch.tensor([40_000, 30_011, 27_000])
    batch = noise(3, 40_000)
    other = batch.clone()
    for clip, length in zip(other, lengths):
        clip[length:] = 100 * noise(40_000 - int(length), seed=2)
    features = frontend(batch, lengths)
    others = frontend(other, lengths)
    for i, length in enumerate(lengths):
        alone = frontend(batch[i, :length])
        assert alone.shape[-1] == frontend.n_steps(frontend.n_frames(int(length)))
        for padded in (features[i], others[i]):
            torch.testing.assert_close(padded[:, : alone.shape[-1]], alone, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize('config', EVERY.values(), ids=EVERY)
def test_silence_is_finite_and_flat(config):
    features = build_frontend(config)(torch.zeros(2, 40_000))
    assert features.isfinite().all()
    assert (features == features[:, :, :1]).all()


@pytest.mark.parametrize('config', EVERY.values(), ids=EVERY)
def test_a_clip_alone_is_as_in_a_batch(config):
    frontend = build_frontend(config)
    batch = noise(3, 2, 32_000)
    features = frontend(batch)
    torch.testing.assert_close(features[2, 1], frontend(batch[2, 1]), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize('config', EVERY.values(), ids=EVERY)
def test_mixed_precision_is_not_used(config):
    frontend = build_frontend(config)
    batch = noise(2, 32_000)
    expected = frontend(batch)
    with torch.autocast('cpu', torch.bfloat16):
        features = frontend(batch)
    assert torch.equal(features, expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('config', EVERY.values(), ids=EVERY)
def test_a_gpu_has_the_same_result(config):
    frontend = build_frontend(config)
    batch, lengths = noise(2, 32_000), torch.tensor([32_000, 28_000])
    expected = frontend(batch, lengths)
    features = frontend.cuda()(batch.cuda(), lengths.cuda()).cpu()
    torch.testing.assert_close(features, expected, atol=1e-2, rtol=1e-4)


# What streams need


@pytest.mark.parametrize('config', STREAMING.values(), ids=STREAMING)
def test_a_frame_depends_only_on_its_own_samples(config):
    frontend = build_frontend(config)
    samples, others = noise(20_000), noise(20_000, seed=2)
    whole = frontend.spectrum(samples)
    assert whole.shape[0] == frontend.n_rows
    frame = 20
    start = frame * frontend.hop_length
    others[start : start + frontend.frame_length] = samples[start : start + frontend.frame_length]
    torch.testing.assert_close(
        frontend.spectrum(others)[:, frame], whole[:, frame], atol=1e-4, rtol=1e-5
    )
    # And of those, indeed.
    for sample in (start + 80, start + frontend.frame_length - 80):
        others[sample] += 1.0
        difference = (frontend.spectrum(others)[:, frame] - whole[:, frame]).abs().max()
        assert difference > 1e-3


@pytest.mark.parametrize('config', STREAMING.values(), ids=STREAMING)
def test_a_part_of_the_sound_has_a_part_of_the_spectrum(config):
    frontend = build_frontend(config)
    samples = noise(60_000)
    whole = frontend.spectrum(samples)

    @given(first=st.integers(0, 40), n_frames=st.integers(1, 40))
    def check(first, n_frames):
        start = first * frontend.hop_length
        n_samples = (n_frames - 1) * frontend.hop_length + frontend.frame_length
        part = frontend.spectrum(samples[start : start + n_samples])
        torch.testing.assert_close(part, whole[:, first : first + n_frames], atol=1e-3, rtol=1e-4)

    check()


def test_silence_stays_at_the_floor_beside_loud_sound():
    frontend = LogMel(LogMelConfig())
    samples = torch.zeros(16_000)
    samples[8_000:] = torch.sin(torch.arange(8_000) / 3)
    decibels = frontend.spectrum(samples)
    n_silent = frontend.n_frames(8_000)
    assert (decibels[:, :n_silent] == frontend.config.floor_db).all()
    assert decibels.max() > frontend.config.floor_db + 60


def test_gain_is_an_offset(speech):
    frontend = LogMel(LogMelConfig(floor_db=-200.0))
    waveform = torch.from_numpy(speech[8_000:24_000])
    difference = frontend.spectrum(waveform) - frontend.spectrum(waveform / 10)
    np.testing.assert_allclose(difference, 20.0, atol=1e-2)


def test_gain_changes_nothing_in_the_research_front_end(studio):
    frontend = Research(ResearchConfig())
    waveform = torch.from_numpy(studio)
    quieter = frontend.spectrum(waveform / 10)
    np.testing.assert_allclose(quieter, frontend.spectrum(waveform), atol=1e-2)


# Statistics


def test_standardised_with_the_statistics_of_training(speech):
    config = LogMelConfig()
    mean = torch.linspace(-60, -40, config.n_mels)[:, None]
    std = torch.linspace(10, 20, config.n_mels)[:, None]
    waveform = torch.from_numpy(speech[:16_000])
    features = LogMel(config, mean, std)(waveform)
    expected = (LogMel(config).spectrum(waveform) - mean) / std
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize('config', [LogMelConfig(), MfccConfig()], ids=['log_mel', 'mfcc'])
def test_statistics_are_those_of_all_frames(config):
    waveforms = [noise(9_000, seed=1), torch.zeros(100), 0.1 * noise(16_000, seed=2)]
    frontend = fit_frontend(config, iter(waveforms))
    raw = build_frontend(config)
    frames = torch.cat([raw(waveforms[0]), raw(waveforms[2])], dim=1)
    torch.testing.assert_close(frontend.mean, frames.mean(dim=1, keepdim=True))
    torch.testing.assert_close(frontend.std, frames.std(dim=1, keepdim=True))
    features = torch.cat([frontend(waveforms[0]), frontend(waveforms[2])], dim=1)
    torch.testing.assert_close(features, (frames - frontend.mean) / frontend.std)


def test_statistics_of_the_research_are_those_of_each_bin():
    waveforms = [noise(30_000 + 9_000 * i, seed=i) * (1 + i) for i in range(4)]
    frontend = fit_frontend(ResearchConfig(), iter(waveforms))
    raw = Research(ResearchConfig())
    clips = torch.stack([raw(waveform) for waveform in waveforms])
    torch.testing.assert_close(frontend.mean, clips.mean(dim=0))
    # The end is padding in all of them.
    assert (frontend.std[:, -100:] == 1).all()
    varied = clips.std(dim=0) > 0.1
    assert varied[:, :20].all()
    torch.testing.assert_close(frontend.std[varied], clips.std(dim=0)[varied])
    assert frontend(waveforms[0]).isfinite().all()


def test_vggish_is_not_standardised(speech):
    frontend = fit_frontend(VggishConfig(), [torch.from_numpy(speech)])
    waveform = noise(16_000)
    assert torch.equal(frontend(waveform), frontend.spectrum(waveform))


@pytest.mark.parametrize('config', [LogMelConfig(), ResearchConfig()], ids=['log_mel', 'research'])
@pytest.mark.parametrize('waveforms', [[], [torch.zeros(0)], [torch.zeros(24_001)]])
def test_too_few_values_to_standardise(config, waveforms):
    if config == LogMelConfig():
        waveforms = [waveform[:512] for waveform in waveforms]
    with pytest.raises(SerError, match='too few'):
        fit_frontend(config, waveforms)


# Settings


@pytest.mark.parametrize('config', EVERY.values(), ids=EVERY)
def test_settings_can_be_read_back_from_plain_values(config):
    values = dataclasses.asdict(config)
    assert values['kind'] == config.kind
    assert from_dict(FrontendConfig, values, 'frontend') == config
    assert type(build_frontend(config).config) is type(config)


def test_settings_without_a_kind_are_of_a_log_mel():
    assert from_dict(FrontendConfig, {'n_mels': 80}, 'frontend') == LogMelConfig(n_mels=80)
    assert from_dict(FrontendConfig, {'kind': 'mfcc', 'n_mels': 80}, 'frontend') == MfccConfig(
        n_mels=80
    )


@pytest.mark.parametrize(
    ('values', 'wording'),
    [
        ({'kind': 'reserch'}, "frontend.kind is 'reserch'; did you mean 'research'?"),
        ({'kind': None}, 'frontend.kind'),
        ({'kind': 'vggish', 'n_mels': 64}, 'frontend.n_mels'),
        ({'kind': 'mfcc', 'n_mfc': 13}, "did you mean 'frontend.n_mfcc'"),
        ({'kind': 'mfcc', 'n_mfcc': 65}, 'n_mfcc'),
        ({'kind': 'mfcc', 'n_mfcc': 0}, 'n_mfcc'),
        ({'kind': 'mfcc', 'deltas': 3}, 'deltas'),
        ({'kind': 'mfcc', 'hop_length': 0}, 'hop_length'),
        ({'kind': 'research', 'offset': -1.0}, 'offset'),
        ({'kind': 'research', 'duration': 0.0}, 'duration'),
        ({'kind': 'research', 'floor_db': 0.0}, 'floor_db'),
        ({'kind': 'research', 'n_mels': 0}, 'n_mels'),
        ({'kind': 'research', 'n_fft': 100}, 'n_fft'),
        ({'kind': 'speech_encoder', 'range_db': 0.0}, 'range_db is 0.0, not positive'),
        ({'kind': 'speech_encoder', 'n_mels': 64}, 'frontend.n_mels'),
        ({'n_mels': 0}, 'n_mels'),
        ({'f_min': 8_000.0}, 'f_min'),
    ],
)
def test_invalid_settings_are_named(values, wording):
    with pytest.raises(SerError) as refusal:
        from_dict(FrontendConfig, values, 'frontend')
    assert wording in str(refusal.value)
    assert '\n' not in str(refusal.value)
