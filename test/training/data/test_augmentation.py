"""Augmentation follows the recipe, clip by clip, and never changes the padding."""

import dataclasses

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.features import build_frontend
from ser_ros.frontend_config import LogMelConfig
from ser_ros.models.blocks import frame_mask
from ser_ros.training.data.augmentation import Augment, mixup, spectrum_by_length
from ser_ros.training.recipe import AugmentationConfig

ONE_BIT = 2.0**-15
PLAIN = AugmentationConfig(
    gain_db=(0.0, 0.0), noise_probability=0.0, mel_masks=0, time_masks=0, mixup_alpha=0.0
)


def make(**changes):
    return Augment(dataclasses.replace(PLAIN, **changes), SAMPLE_RATE)


def noise(batch, n, seed=1):
    return 0.1 * torch.randn(batch, n, generator=torch.Generator().manual_seed(seed))


def full(x):
    """Lengths of a batch without padding."""
    return torch.full((len(x),), x.shape[-1])


def energy(samples):
    return samples.square().sum(dim=1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(1)


# --- Waveforms


def test_augmentation_off_changes_nothing():
    samples = noise(3, 5_000)
    before = samples.clone()
    out = make().waveform(samples, full(samples))
    torch.testing.assert_close(out, samples, atol=ONE_BIT, rtol=0)
    assert torch.equal(samples, before)
    x = torch.randn(3, 64, 90)
    torch.testing.assert_close(make().spectrogram(x, full(x)), x)


EVERYTHING = {
    'gain_db': (-10.0, 10.0),
    'noise_probability': 1.0,
    'noise_snr_db': (5.0, 10.0),
    'reverb_probability': 1.0,
    'mel_shift': 3.0,
    'mel_masks': 2,
    'time_masks': 2,
}


def test_the_seed_decides():
    samples, x = noise(3, 5_000), torch.randn(3, 64, 90)
    augment = make(**EVERYTHING)
    waveforms, spectrograms = [], []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        waveforms.append(augment.waveform(samples, full(samples)))
        spectrograms.append(augment.spectrogram(x, full(x)))
    for first, again, other in (waveforms, spectrograms):
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


@given(st.lists(st.integers(1, 3_000), min_size=1, max_size=5))
def test_padding_stays_zero_and_does_not_count(lengths):
    """The values in the padding do not matter either."""
    lengths = torch.tensor(lengths)
    samples = noise(len(lengths), int(lengths.max()))
    augment = make(**EVERYTHING)
    torch.manual_seed(1)
    out = augment.waveform(samples, lengths)
    assert out.isfinite().all()
    real = frame_mask(lengths, samples.shape[1])
    assert not out[~real].any()
    torch.manual_seed(1)
    assert torch.equal(augment.waveform(samples * real, lengths), out)


@pytest.mark.parametrize('gain_db', [-20.0, 6.0])
def test_gain(gain_db):
    samples = noise(3, 5_000)
    out = make(gain_db=(gain_db, gain_db)).waveform(samples, full(samples))
    expected = (samples * 10 ** (gain_db / 20)).clamp(-1, 1)
    torch.testing.assert_close(out, expected, atol=ONE_BIT, rtol=0)


def test_a_quiet_voice_is_as_coarse_as_in_a_message():
    samples = noise(3, 5_000)
    steps = make(gain_db=(-60.0, -60.0)).waveform(samples, full(samples)) / ONE_BIT
    assert (steps == steps.round()).all()
    assert 0 < len(steps.unique()) < 40


def test_loud_samples_are_clipped_as_a_microphone_does():
    samples = noise(2, 1_000)
    out = make(gain_db=(40.0, 40.0)).waveform(samples, full(samples))
    assert out.abs().max() == 1


@pytest.mark.parametrize('snr_db', [10.0, 30.0])
def test_noise_is_relative_to_each_clip(snr_db):
    """Without its padding: the noise is as loud in a short clip as in a long one."""
    samples = noise(3, 50_000) * torch.tensor([[1.0], [0.1], [1.0]])
    lengths = torch.tensor([50_000, 50_000, 5_000])
    samples[2, 5_000:] = 0
    augment = make(noise_probability=1.0, noise_snr_db=(snr_db, snr_db))
    added = augment.waveform(samples, lengths) - samples
    ratio = 10 * (energy(samples) / energy(added)).log10()
    torch.testing.assert_close(ratio, torch.full((3,), snr_db), atol=0.3, rtol=0)


def test_noise_has_the_probability_of_the_recipe():
    samples = noise(400, 200)
    changed = make(noise_probability=0.3).waveform(samples, full(samples))
    share = ((changed - samples).abs() > 2 * ONE_BIT).any(dim=1).float().mean()
    assert share == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize('seconds', [0.1, 20.0], ids=['short', 'long'])
def test_half_of_the_noises_are_from_the_folder_with_the_same_level(tmp_path, seconds):
    time = np.arange(round(seconds * 48_000)) / 48_000
    # Not as loud in the part of a stretch that a short clip gets as in all of it.
    tone = 0.05 * np.sin(2 * np.pi * 1_000 * time) * (1 + 0.9 * np.sin(2 * np.pi * 2 * time))
    (tmp_path / 'below').mkdir()
    soundfile.write(tmp_path / 'below' / 'tone.wav', tone, 48_000)
    (tmp_path / 'below' / '._tone.wav').write_bytes(b'left by macOS')
    (tmp_path / 'notes.txt').write_text('no sound')
    lengths = torch.tensor([16_000, 5_000] * 30)
    samples = noise(60, 16_000) * frame_mask(lengths, 16_000)
    augment = make(noise_probability=1.0, noise_snr_db=(0.0, 0.0), noise_folder=str(tmp_path))
    added = augment.waveform(samples, lengths) - samples
    torch.testing.assert_close(energy(added), energy(samples), rtol=0.08, atol=0)
    spectra = torch.fft.rfft(added).abs().square()
    tonal = spectra[:, 960:1_041].sum(dim=1) / spectra.sum(dim=1)
    assert ((tonal > 0.9) | (tonal < 0.1)).all()
    assert 15 <= (tonal > 0.9).sum() <= 45
    # Stretches begin anywhere.
    assert len(added[tonal > 0.9][:, 0].unique()) > 5


def test_noise_for_an_evaluation_is_not_used(tmp_path):
    for number, frequency in enumerate((1_000, 2_000, 3_000)):
        sound = 0.1 * np.sin(2 * np.pi * frequency * np.arange(16_000) / SAMPLE_RATE)
        soundfile.write(tmp_path / f'{number}.wav', sound, SAMPLE_RATE)
    samples = noise(60, 16_000)
    augment = make(noise_probability=1.0, noise_snr_db=(0.0, 0.0), noise_folder=str(tmp_path))
    added = augment.waveform(samples, full(samples)) - samples
    spectra = torch.fft.rfft(added).abs().square()
    tonal = spectra[spectra.amax(dim=1) > 0.4 * spectra.sum(dim=1)]
    assert set(tonal.argmax(dim=1).tolist()) == {1_000, 2_000}
    # All recorded rooms are used.
    assert len(make(reverb_folder=str(tmp_path))._responses) == 3


@pytest.mark.parametrize('key', ['noise_folder', 'reverb_folder'])
def test_a_folder_without_sound_is_named(tmp_path, key):
    (tmp_path / 'notes.txt').write_text('no sound')
    for folder in (tmp_path, tmp_path / 'missing'):
        with pytest.raises(SerError, match=f'{key} .*{folder.name}.* has no sound files'):
            make(**{key: str(folder)})
    soundfile.write(tmp_path / 'hush.wav', np.zeros(1_000), SAMPLE_RATE)
    with pytest.raises(SerError, match='hush.wav is silent'):
        make(**{key: str(tmp_path)})
    (tmp_path / 'hush.wav').write_text('no sound')
    with pytest.raises(SerError, match='hush.wav'):
        make(**{key: str(tmp_path)})


@pytest.mark.parametrize('rt60', [0.3, 0.8])
def test_a_generated_room_decays_in_its_time(rt60):
    samples = torch.zeros(40, 20_000)
    samples[:, 1_000] = 0.5
    out = make(reverb_probability=1.0, reverb_rt60=(rt60, rt60)).waveform(samples, full(samples))
    assert not out[:, :1_000].any()
    assert (out.abs().argmax(dim=1) == 1_000).all()  # the direct sound
    # Schroeder's backward integration over all rooms; from 5 to 25 dB below, as usual.
    tail = out[:, 1_001:].square().sum(dim=0)
    level = 10 * (tail.flip(0).cumsum(0).flip(0) / tail.sum()).log10()
    start, end = (int((level < db).nonzero()[0]) for db in (-5, -25))
    assert 3 * (end - start) / SAMPLE_RATE == pytest.approx(rt60, rel=0.1)
    ratio_db = 10 * (out[:, 1_000].square() / out[:, 1_001:].square().sum(dim=1)).log10()
    assert -6.5 < ratio_db.min() < -3
    assert 7 < ratio_db.max() < 10.5


def test_a_room_keeps_the_energy_of_each_clip():
    samples = noise(8, 20_000) * torch.logspace(-2, 0, 8)[:, None]
    lengths = torch.tensor([20_000, 8_000] * 4)
    samples *= frame_mask(lengths, 20_000)
    out = make(reverb_probability=1.0).waveform(samples, lengths)
    torch.testing.assert_close(energy(out), energy(samples), rtol=0.02, atol=0)
    for before, after in zip(samples, out):
        assert abs(np.corrcoef(before, after)[0, 1]) < 0.98


def test_rooms_have_the_probability_of_the_recipe():
    samples = noise(300, 500)
    out = make(reverb_probability=0.3).waveform(samples, full(samples))
    share = ((out - samples).abs() > 2 * ONE_BIT).any(dim=1).float().mean()
    assert share == pytest.approx(0.3, abs=0.07)


def test_a_recorded_room_begins_with_its_direct_sound(tmp_path):
    response = np.zeros(4_000)
    response[[700, 1_200]] = 0.8, -0.4
    soundfile.write(tmp_path / 'room.wav', response, SAMPLE_RATE)
    samples = noise(2, 10_000)
    augment = make(reverb_probability=1.0, reverb_folder=str(tmp_path))
    out = augment.waveform(samples, full(samples))
    expected = samples.clone()
    expected[:, 500:] -= 0.5 * samples[:, :-500]
    expected *= (energy(samples) / energy(expected)).sqrt()[:, None]
    torch.testing.assert_close(out, expected, atol=3 * ONE_BIT, rtol=1e-3)


def test_recorded_rooms_are_drawn(tmp_path):
    for delay in (100, 200, 300):
        response = np.zeros(1_000 + delay)
        response[[0, delay]] = 0.8, 0.7
        soundfile.write(tmp_path / f'{delay}.wav', response, 2 * SAMPLE_RATE)
    samples = torch.zeros(30, 2_000)
    samples[:, 0] = 0.5
    augment = make(reverb_probability=1.0, reverb_folder=str(tmp_path))
    out = augment.waveform(samples, full(samples))
    echoes = (10 + out[:, 10:].abs().argmax(dim=1)).tolist()
    assert set(echoes) == {50, 100, 150}  # at half the rate


# --- Spectrograms


@pytest.mark.parametrize(
    ('axis', 'width', 'changes'),
    [
        (1, 16, {'mel_masks': 2, 'mel_mask_width': 8}),
        (2, 40, {'time_masks': 2, 'time_mask_width': 20}),
    ],
    ids=['mels', 'frames'],
)
def test_masks_are_whole_bands_of_their_width_at_most(axis, width, changes):
    x = torch.ones(200, 64, 90)
    out = make(**changes).spectrogram(x, full(x))
    other = 3 - axis
    assert (out.amin(dim=other) == out.amax(dim=other)).all()
    masked = (out.amin(dim=other) == 0).sum(dim=1)
    assert masked.max() <= width
    # Two masks, each half as wide as it may be on average, that seldom meet.
    assert 0.35 * width < masked.float().mean() < 0.5 * width


def test_time_masks_are_inside_the_clip():
    x, lengths = torch.ones(300, 4, 200), torch.full((300,), 50)
    out = make(time_masks=1, time_mask_width=20).spectrogram(x, lengths)[:, 0]
    assert not out[:, 50:].any()
    hidden = (out[:, :50] == 0).float()
    assert hidden.sum(dim=1).max() <= 20
    assert hidden.sum(dim=1).mean() == pytest.approx(10, abs=1.5)


def test_masks_fit_into_a_clip_shorter_than_they_are():
    x = torch.ones(50, 64, 10)
    out = make(time_masks=3, time_mask_width=50).spectrogram(x, full(x))
    assert out.shape == (50, 64, 10)
    assert set(out.unique().tolist()) <= {0.0, 1.0}


def test_frames_after_a_clip_are_the_mean():
    x = torch.randn(3, 8, 30)
    lengths = torch.tensor([30, 1, 17])
    out = make().spectrogram(x, lengths)
    assert torch.equal(out, x * frame_mask(lengths, 30)[:, None])


def test_all_bands_of_a_clip_shift_by_one_distance():
    band = torch.arange(64.0)[None, :, None].expand(50, 64, 5)
    out = make(mel_shift=3.0).spectrogram(band, full(band))
    assert torch.equal(out[..., 0], out[..., 4])
    shift = out[:, 32, 0] - 32
    expected = (band[:1, :, 0] + shift[:, None]).clamp(0, 63)
    torch.testing.assert_close(out[..., 0], expected)
    assert -3 <= shift.min() < -2
    assert 2 < shift.max() <= 3


def test_a_shift_lies_between_two_bands():
    x = torch.randn(4, 16, 7)
    out = make(mel_shift=0.5).spectrogram(x, full(x))
    for before, after in zip(x, out):
        steps = (after - before)[1:-1]
        share = max(
            (steps * step).sum() / (step * step).sum()
            for step in (before[2:] - before[1:-1], before[:-2] - before[1:-1])
        )
        assert 0 <= share <= 0.5
        up, down = before[2:] - before[1:-1], before[:-2] - before[1:-1]
        assert min((steps - share * step).abs().max() for step in (up, down)) < 1e-5


# --- Mixup


def test_mixup_mixes_sounds_and_targets_with_one_share():
    n = 6
    # Clip i is i everywhere and of class i: mixtures tell who is in them.
    x = torch.eye(n)[:, :, None].expand(n, n, 40).clone()
    lengths = torch.tensor([40, 10, 20, 30, 40, 5])
    x *= frame_mask(lengths, 40)[:, None]
    for _ in range(20):
        known = torch.eye(n, dtype=torch.bool)
        mixed, mixed_lengths, targets, either = mixup(x, lengths, torch.eye(n), known, 1.0)
        own = targets.diagonal()
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(n))
        torch.testing.assert_close(mixed[:, :, 0], targets)
        is_mixed = own < 1  # the others were mixed with themselves
        torch.testing.assert_close(own[is_mixed], own[is_mixed].amax().expand(is_mixed.sum()))
        others = torch.where(is_mixed, (targets - torch.diag(own)).argmax(dim=1), torch.arange(n))
        assert sorted(others.tolist()) == list(range(n))
        assert torch.equal(mixed_lengths, torch.maximum(lengths, lengths[others]))
        assert torch.equal(either, known | known[others])
        assert not (mixed.sum(dim=1) * ~frame_mask(mixed_lengths, 40)).any()


@pytest.mark.parametrize('alpha', [0.2, 1.0])
def test_the_larger_share_is_a_clips_own(alpha):
    x, targets = torch.randn(4, 3, 5), torch.eye(4)
    shares = [
        mixup(x, full(x), targets, targets > 0, alpha)[2].diagonal().amin().item()
        for _ in range(200)
    ]
    assert min(shares) >= 0.5
    assert max(shares) > 0.99
    assert len(set(shares)) > 50
    # The smaller alpha is, the less is mixed.
    assert np.mean(shares) == pytest.approx({0.2: 0.92, 1.0: 0.77}[alpha], abs=0.04)


# --- Microphones, and voices of several clips


def response(augment, n_clips, n=8_192):
    """(n_clips, n / 2 + 1) decibels of each clip's filter: the spectra of unit impulses."""
    impulses = torch.zeros(n_clips, n)
    impulses[:, n // 2] = 0.5
    out = augment.waveform(impulses, full(impulses))
    return 20 * (torch.fft.rfft(out).abs() * 2 + 1e-6).log10()


def test_microphones_differ_and_are_smooth():
    gain_db = response(make(equalizer_probability=1.0), 40)
    assert 2 < gain_db[:, 100:-100].std() < 12
    assert gain_db.diff(dim=1).abs()[:, 100:-100].max() < 0.5
    assert len(set(gain_db[:, 500].tolist())) == 40


def test_a_share_of_the_voices_gets_another_microphone():
    gain_db = response(make(equalizer_probability=0.3), 300)
    changed = (gain_db.abs().amax(dim=1) > 0.1).float().mean()
    assert changed == pytest.approx(0.3, abs=0.08)


def test_a_band_is_cut_off_above_its_limit():
    gain_db = response(make(band_limit_probability=1.0, band_limit=(3_000.0, 3_000.0)), 2)
    frequency = torch.linspace(0, SAMPLE_RATE / 2, gain_db.shape[1])
    assert gain_db[:, frequency < 2_900].abs().max() < 0.5
    assert gain_db[:, frequency > 6_100].max() < -50


def test_a_filter_does_not_move_the_end_of_a_clip_to_its_start():
    samples = torch.zeros(8, 8_192)
    samples[:, -1] = 0.5
    out = make(band_limit_probability=1.0).waveform(samples, full(samples))
    assert out[:, :4_096].abs().max() < 2e-4


# --- Clips of different lengths


def test_the_spectrum_of_a_clip_does_not_depend_on_the_clips_beside_it():
    frontend = build_frontend(LogMelConfig())
    samples, lengths = noise(4, 32_000), torch.tensor([32_000, 24_000, 20_000, 16_000])
    spectrum = spectrum_by_length(frontend, samples, lengths)
    assert spectrum.shape[-1] == frontend.n_frames(32_000)
    for row, clip, n in zip(spectrum, samples, lengths):
        alone = frontend.spectrum(clip[:n])
        n_frames = alone.shape[-1]
        torch.testing.assert_close(row[:, :n_frames], alone, atol=1e-4, rtol=1e-4)
        assert not row[:, n_frames:].any()
