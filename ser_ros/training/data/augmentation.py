"""Augmentation of a batch of training clips on the device: rooms, noise, gain, masks, mixup."""

from collections.abc import Iterator

import torch
from scipy.fft import next_fast_len
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import fftconvolve
from tqdm import tqdm

from ser_ros import SerError
from ser_ros.audio.sources import read_audio
from ser_ros.files import user_path
from ser_ros.models.blocks import frame_mask
from ser_ros.training.data.noise import list_sounds, split_recordings
from ser_ros.training.recipe import AugmentationConfig

DIRECT_TO_REVERBERANT_DB = (-6.0, 10.0)
"""Energy of the direct sound relative to the room's, in generated rooms: for a voice at 0.3 to 2 m
in 30 to 80 m³. The two are equal at the critical distance, 0.057·√(2·volume/rt60) metres for a
voice, which radiates twice as much to the front (Kuttruff, Room Acoustics)."""

FILTER_TAIL = 512
"""Samples after a clip in which its filter's response ends, instead of at the clip's start."""

FILTER_BINS = 1025
"""Frequencies at which a filter's gain is computed; in between it is linear."""

LONGEST_RESPONSE = 2.0
"""The most seconds of a recorded impulse response that are used."""


def chunks_by_length(lengths: Tensor, n_chunks: int = 8) -> Iterator[tuple[Tensor, int]]:
    """Indices of clips of similar `lengths` (batch,), and the longest length among them.

    To process them together saves time, since padding takes as long as sound: of crops from 0.3 to
    3 s that are padded to the longest, almost half is padding. Small chunks also stay in the cache.
    """
    for clips in lengths.argsort().tensor_split(min(n_chunks, len(lengths))):
        yield clips, int(lengths[clips[-1]])


class Augment(nn.Module):
    """Rooms, noise and gain for waveforms, shifts and masks for spectrograms; drawn per clip.

    All random draws use torch's global generators.
    """

    def __init__(self, config: AugmentationConfig, sample_rate: int):
        """SerError if the folder of noises or impulse responses has none, or a silent one."""
        super().__init__()
        self.config = config
        self.sample_rate = sample_rate
        # Not buffers, since averages of weights include those; integers take half the memory.
        noises = _read_folder('noise_folder', config.noise_folder, sample_rate, is_split=True)
        self._noises = [(sound * 2.0**15).to(torch.int16) for sound in noises]
        responses = _read_folder('reverb_folder', config.reverb_folder, sample_rate)
        self._responses = [
            response[response.abs().argmax() :][: round(LONGEST_RESPONSE * sample_rate)]
            for response in responses
        ]

    def waveform(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """(batch, samples), true lengths (batch,) → the same shape, zero after the lengths.

        Rounded to 16 bits after the gain, like a quiet voice in a message.
        """
        real = frame_mask(lengths, samples.shape[1])
        samples = samples * real
        # In place from here on: new memory would take most of the time.
        self._reverberate(samples, lengths)
        self._add_noise(samples, lengths)
        self._filter(samples, lengths)
        gain_db = _uniform((len(samples), 1), self.config.gain_db, samples.device)
        full_scale = 2.0**15
        samples.mul_(full_scale * 10 ** (gain_db / 20)).clamp_(-full_scale, full_scale)
        return samples.round_().div_(full_scale).mul_(real)

    def _reverberate(self, samples: Tensor, lengths: Tensor) -> None:
        """Add a room to some clips, another one to each; the clips' energy does not change."""
        chosen = _draw(len(samples), self.config.reverb_probability, samples.device)
        if not len(chosen):
            return
        responses = (
            self._recorded(len(chosen))
            if self._responses
            else self._generated(len(chosen), samples.device)
        ).to(samples.device)
        for rows, n in chunks_by_length(lengths[chosen]):
            clips = chosen[rows]
            dry = samples[clips, :n]
            response = responses[rows]
            # Transforms of lengths with large prime factors take up to eight times as long.
            size = n + response.shape[1] - 1
            spare = next_fast_len(size, real=True) - size
            wet = fftconvolve(dry, nn.functional.pad(response, (0, spare)))[:, :n]
            wet = wet * frame_mask(lengths[clips], n)
            samples[clips, :n] = wet.mul_(_norm(dry) / _norm(wet).clamp(min=1e-10))

    def _recorded(self, n: int) -> Tensor:
        """(n, longest) impulse responses that begin with the direct sound."""
        drawn = torch.randint(len(self._responses), (n,)).tolist()
        return pad_sequence([self._responses[index] for index in drawn], batch_first=True)

    def _generated(self, n: int, device: torch.device) -> Tensor:
        """(n, longest): direct sound, and noise that decays exponentially."""
        rt60 = _uniform((n, 1), self.config.reverb_rt60, device)
        time = torch.arange(1, 1 + round(self.config.reverb_rt60[1] * self.sample_rate))
        tail = torch.randn(n, len(time), device=device)
        tail = tail * 10 ** (-3 * time.to(device) / self.sample_rate / rt60)
        ratio_db = _uniform((n, 1), DIRECT_TO_REVERBERANT_DB, device)
        tail = nn.functional.normalize(tail, dim=1) * 10 ** (-ratio_db / 20)
        return torch.cat((torch.ones(n, 1, device=device), tail), dim=1)

    def _add_noise(self, samples: Tensor, lengths: Tensor) -> None:
        """Add noise relative to each clip's level."""
        chosen = _draw(len(samples), self.config.noise_probability, samples.device)
        if not len(chosen):
            return
        noise = torch.randn(len(chosen), samples.shape[1], device=samples.device)
        if self._noises:
            sizes = lengths[chosen].tolist()
            for row in _draw(len(chosen), 0.5, torch.device('cpu')).tolist():
                recording = int(torch.randint(len(self._noises), ()))
                noise[row] = self._stretch(recording, samples.shape[1], sizes[row])
        level = _norm(samples[chosen]) / lengths[chosen].sqrt()[:, None]
        snr_db = _uniform((len(level), 1), self.config.noise_snr_db, samples.device)
        samples.index_add_(0, chosen, noise.mul_(level * 10 ** (-snr_db / 20)))

    def _stretch(self, recording: int, n: int, length: int) -> Tensor:
        """(n,) samples of a recording, repeated if it is shorter; unit power up to `length`."""
        noise = self._noises[recording]
        noise = noise.repeat(-(-n // len(noise)))
        start = int(torch.randint(len(noise) - n + 1, ()))
        stretch = noise[start : start + n].float()
        return stretch / stretch[:length].square().mean().sqrt().clamp(min=1.0)

    def _filter(self, samples: Tensor, lengths: Tensor) -> None:
        """Pass some clips through a microphone and a narrower band, others for each clip."""
        config, n, device = self.config, len(samples), samples.device
        if not (config.equalizer_probability or config.band_limit_probability):
            return
        frequency = torch.linspace(0, self.sample_rate / 2, FILTER_BINS, device=device)
        mel = (1 + frequency / 700).log()  # but for a factor
        gain_db = torch.zeros(n, len(frequency), device=device)
        for order in range(1, 5):
            ripple = torch.cos(torch.pi * order * mel / mel[-1])
            gain_db += torch.randn(n, 1, device=device) * config.equalizer_db / order * ripple
        gain_db *= torch.rand(n, 1, device=device) < config.equalizer_probability
        limit = _uniform((n, 1), config.band_limit, device)
        is_limited = torch.rand(n, 1, device=device) < config.band_limit_probability
        # 80 dB an octave, as steep as a telephone's.
        slope_db = 80 * (frequency / limit).clamp(min=1.0).log2()
        gain = 10 ** ((gain_db - slope_db * is_limited) / 20)
        for clips, longest in chunks_by_length(lengths):
            size = next_fast_len(longest + FILTER_TAIL, real=True)
            own = nn.functional.interpolate(
                gain[clips][:, None], size // 2 + 1, mode='linear', align_corners=True
            )[:, 0]
            spectrum = torch.fft.rfft(samples[clips, :longest], size) * own
            filtered = torch.fft.irfft(spectrum, size)[:, :longest]
            samples[clips, :longest] = filtered * frame_mask(lengths[clips], longest)

    def spectrogram(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(batch, n_features, frames), true lengths (batch,) → the same shape.

        Bands are shifted; some bands and some stretches of time are set to zero, and all after the
        lengths. Zero is the mean of the training set, not that of this clip.
        """
        config = self.config
        if config.mel_shift:
            x = self._shift_bands(x)
        hidden = ~frame_mask(lengths, x.shape[2])
        if config.time_masks and config.time_mask_width:
            hidden |= _masks(lengths, x.shape[2], config.time_masks, config.time_mask_width)
        hidden = hidden[:, None]
        if config.mel_masks and config.mel_mask_width:
            sizes = torch.full_like(lengths, x.shape[1])
            masks = _masks(sizes, x.shape[1], config.mel_masks, config.mel_mask_width)
            hidden = hidden | masks[:, :, None]
        return x.masked_fill(hidden, 0.0)

    def _shift_bands(self, x: Tensor) -> Tensor:
        """Shift each clip up or down by a fraction of bands; the outermost bands are repeated."""
        limit = self.config.mel_shift
        shift = _uniform((len(x), 1), (-limit, limit), x.device)
        last = x.shape[1] - 1
        source = (torch.arange(last + 1, device=x.device) + shift).clamp(0, last)
        below = source.floor().long()
        clip = torch.arange(len(x), device=x.device)[:, None]
        share = (source - below)[:, :, None]
        return torch.lerp(x[clip, below], x[clip, (below + 1).clamp(max=last)], share)


def spectrum_by_length(frontend: nn.Module, samples: Tensor, lengths: Tensor) -> Tensor:
    """(batch, samples), true lengths in samples (batch,) → (batch, n_rows, frames), zero after each."""
    n_frames = frontend.n_frames(samples.shape[1])
    spectrum = samples.new_zeros(len(samples), frontend.n_rows, n_frames)
    for clips, longest in chunks_by_length(lengths):
        part = frontend.spectrum(samples[clips, :longest])
        spectrum[clips, :, : part.shape[-1]] = part
    return spectrum * frame_mask(frontend.n_frames(lengths), n_frames)[:, None]


def mixup(
    x: Tensor, lengths: Tensor, targets: Tensor, known: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mix each clip with another of the batch (Zhang et al., 2018), the larger share its own.

    `x` (batch, n_features, frames) is zero after the true `lengths` (batch,); `targets` (batch,
    n_classes) are mixed with the same share; `known` (batch, n_classes) become the classes that
    either corpus has.
    """
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    share = max(share, 1 - share)
    other = torch.randperm(len(x), device=x.device)
    lengths = torch.maximum(lengths, lengths[other])
    targets = torch.lerp(targets[other], targets, share)
    return torch.lerp(x[other], x, share), lengths, targets, known | known[other]


def _draw(n: int, probability: float, device: torch.device) -> Tensor:
    """Indices of the clips, out of n, that are drawn with this probability."""
    if probability == 0:
        return torch.empty(0, dtype=torch.long, device=device)
    return torch.nonzero(torch.rand(n, device=device) < probability).flatten()


def _norm(samples: Tensor) -> Tensor:
    """(batch, samples) → (batch, 1) roots of the energy."""
    return torch.linalg.vector_norm(samples, dim=1, keepdim=True)


def _uniform(
    shape: int | tuple[int, ...], bounds: tuple[float, float], device: torch.device
) -> Tensor:
    return torch.empty(shape, device=device).uniform_(*bounds)


def _masks(sizes: Tensor, longest: int, count: int, max_width: int) -> Tensor:
    """(batch, longest), True under one of `count` masks, which lie within sizes (batch,)."""
    width = _uniform((len(sizes), count, 1), (0, max_width), sizes.device)
    start = torch.rand(width.shape, device=sizes.device) * (sizes[:, None, None] - width)
    position = torch.arange(longest, device=sizes.device)
    return ((position >= start) & (position < start + width)).any(dim=1)


def _read_folder(key: str, folder: str, sample_rate: int, is_split: bool = False) -> list[Tensor]:
    """All sounds below a folder, each (n,); none if the recipe's `key` names no folder.

    `is_split`: without those that `split_recordings` keeps for evaluation.
    """
    if not folder:
        return []
    paths = list_sounds(user_path(folder), key)
    if is_split:
        paths, _ = split_recordings(paths)
    sounds = []
    for path in tqdm(paths, desc=key, unit='file', leave=False, disable=None):
        sounds.append(torch.from_numpy(read_audio(path, sample_rate)))
        if sounds[-1].abs().max() < 2.0**-15:
            raise SerError(f'{path} is silent: remove it from {key} {folder!r}')
    return sounds
