"""Front-ends: waveform → spectrum, of rows and frames → standardised features."""

import itertools
import math
from collections.abc import Iterable
from typing import ClassVar, Optional, Union

import torch
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks
from torchaudio.functional import create_dct
from torchaudio.transforms import MelScale, MelSpectrogram, Spectrogram

from ser_ros import SerError
from ser_ros.frontend_config import (
    FrontendConfig,
    LogMelConfig,
    MfccConfig,
    ResearchConfig,
    SpeechEncoderConfig,
    VggishConfig,
)
from ser_ros.speech_encoder import SpeechConvolutions, load_speech_convolutions


class Frontend(nn.Module):
    """Base class of all front-ends.

    Frame t of the spectrum of a streaming front-end depends only on the samples from
    t·hop_length to t·hop_length + frame_length, so that a stream computes only its new frames. Its
    features have steps: one for each frame, or, of `SpeechEncoder`, one for all of a clip.
    """

    is_pooled: ClassVar[bool] = False
    """Whether the features have one step for all of a clip."""
    stft: Spectrogram
    """Of a streaming front-end: the transform of each frame."""

    def __init__(
        self,
        config: FrontendConfig,
        frame_length: int,
        hop_length: int,
        n_rows: int,
        statistics_shape: tuple[int, int],
        mean: Optional[Tensor],
        std: Optional[Tensor],
    ):
        """`n_rows`: of the spectrum; `mean` and `std`: (n_features, 1) or (n_features, frames).

        SerError if they have another shape, or are not finite, or `std` is not positive.
        """
        super().__init__()
        self.config = config
        self.is_streaming = config.is_streaming
        self.sample_rate = config.sample_rate
        self.frame_length = frame_length
        self.hop_length = hop_length
        self.n_rows = n_rows
        self.n_features = statistics_shape[0]
        for name, values, default in (('mean', mean, 0.0), ('std', std, 1.0)):
            values = torch.full(statistics_shape, default) if values is None else values.float()
            if values.shape != statistics_shape:
                raise SerError(
                    f'frontend.{name} has the shape {tuple(values.shape)}, not {statistics_shape}'
                )
            if not values.isfinite().all():
                raise SerError(f'frontend.{name} is not finite')
            self.register_buffer(name, values.clone())
        if (self.std <= 0).any():
            raise SerError('frontend.std is not positive')

    def tensors(self) -> dict[str, Tensor]:
        """What a bundle stores of it, by name."""
        return {'mean': self.mean, 'std': self.std}

    def n_frames(self, n_samples: Union[int, Tensor]) -> Union[int, Tensor]:
        """Whole frames in each of `n_samples` samples."""
        n = (n_samples - self.frame_length) // self.hop_length + 1
        return n.clamp(min=0) if isinstance(n, Tensor) else max(0, n)

    def n_steps(self, n_frames: Union[int, Tensor]) -> Union[int, Tensor]:
        """Steps of the features of each of `n_frames` frames."""
        return n_frames

    def n_samples(self, n_steps: int) -> int:
        """The least number of samples whose features have `n_steps` (≥ 1) steps."""
        return (n_steps - 1) * self.hop_length + self.frame_length

    def spectrum(self, waveform: Tensor) -> Tensor:
        """(..., samples) at `sample_rate` → (..., n_rows, frames), not standardised."""
        # Two thirds of the time of abs() and its square.
        real, imaginary = torch.view_as_real(self.stft(waveform)).unbind(dim=-1)
        return self.rows(real.square() + imaginary.square())

    def rows(self, power: Tensor) -> Tensor:
        """(..., bins, frames), squared magnitudes of `stft` → (..., n_rows, frames)."""
        raise NotImplementedError

    def features(self, spectrum: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(..., n_rows, frames), true lengths in frames (...) → (..., n_features, steps).

        They are not standardised. Frames after a clip's length do not change its own steps.
        """
        return spectrum

    def standardise(self, features: Tensor, mean: Optional[Tensor] = None) -> Tensor:
        """`features` (..., n_features, steps) → the same shape.

        `mean`: (..., n_features, 1), a voice's own (see `voice_mean`); the training set's if None.
        """
        return (features - (self.mean if mean is None else mean)) / self.std

    def clip_mean(self, features: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """`features` (..., n_features, steps), true lengths in steps (...) → (..., n_features, 1).

        The mean of each feature over the clip's true steps, not a number without any.
        """
        if lengths is None:
            return features.mean(dim=-1, keepdim=True)
        real = torch.arange(features.shape[-1], device=features.device) < lengths[..., None]
        total = (features * real[..., None, :]).sum(dim=-1, keepdim=True)
        return total / lengths[..., None, None]

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(..., samples), true lengths in samples (...) → (..., n_features, steps)."""
        frames = None if lengths is None else self.n_frames(lengths)
        # Sums of power in bfloat16 would be wrong by a third of a decibel.
        with torch.autocast(waveform.device.type, enabled=False):
            return self.standardise(self.features(self.spectrum(waveform), frames))


def _stft(config: LogMelConfig) -> Spectrogram:
    return Spectrogram(
        config.n_fft, config.win_length, config.hop_length, power=None, center=False
    )


def _mel_scale(config: LogMelConfig) -> MelScale:
    return MelScale(
        config.n_mels,
        config.sample_rate,
        config.f_min,
        config.f_max,
        config.n_fft // 2 + 1,
        norm='slaney',
        mel_scale='slaney',
    )


def _decibels(power: Tensor, floor_db: float) -> Tensor:
    return 10.0 * power.clamp(min=10.0 ** (floor_db / 10.0)).log10()


def _limit_range(decibels: Tensor, real: Tensor, range_db: float) -> Tensor:
    """(..., bins, frames) with what is further below the clip's loudest bin raised to that.

    `real`: which frames are the clip's own, broadcastable.
    """
    loudest = decibels.where(real, -torch.inf).amax(dim=(-2, -1), keepdim=True)
    return decibels.maximum(loudest - range_db)


class LogMel(Frontend):
    """Mel power spectrogram (Hann window, Slaney scale and norm) in decibels, not padded.

    The reference is fixed, so that silence has a low level, whatever else the clip contains.
    """

    def __init__(
        self, config: LogMelConfig, mean: Optional[Tensor] = None, std: Optional[Tensor] = None
    ):
        shape = (config.n_mels, 1)
        super().__init__(config, config.n_fft, config.hop_length, config.n_mels, shape, mean, std)
        self.stft = _stft(config)
        self.mel = _mel_scale(config)

    def rows(self, power: Tensor) -> Tensor:
        """(..., bins, frames) → (..., n_mels, frames) in dB."""
        return _decibels(self.mel(power), self.config.floor_db)


class Mfcc(Frontend):
    """Cepstral coefficients: the orthonormal DCT-II of `LogMel`'s decibels, and their deltas.

    Deltas are slopes fitted to five frames, as in HTK: the first and the last frame are repeated
    before and after the clip. The second deltas are deltas of the first.
    """

    def __init__(
        self, config: MfccConfig, mean: Optional[Tensor] = None, std: Optional[Tensor] = None
    ):
        shape = (config.n_mfcc * (1 + config.deltas), 1)
        super().__init__(config, config.n_fft, config.hop_length, config.n_mfcc, shape, mean, std)
        self.stft = _stft(config)
        self.mel = _mel_scale(config)
        dct = create_dct(config.n_mfcc, config.n_mels, norm='ortho').T
        self.register_buffer('dct', dct, persistent=False)

    def rows(self, power: Tensor) -> Tensor:
        """(..., bins, frames) → (..., n_mfcc, frames)."""
        return self.dct @ _decibels(self.mel(power), self.config.floor_db)

    def features(self, spectrum: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(..., n_mfcc, frames), true lengths in frames (...) → (..., n_features, frames)."""
        parts = [_hold(spectrum, lengths)]
        for _ in range(self.config.deltas):
            parts.append(_hold(_deltas(parts[-1]), lengths))
        return torch.cat(parts, dim=-2)


def _hold(x: Tensor, lengths: Optional[Tensor]) -> Tensor:
    """(..., rows, frames) with each clip's last true frame repeated to the end."""
    if lengths is None:
        return x
    last = (lengths - 1).clamp(min=0)[..., None, None]
    return x.gather(-1, torch.arange(x.shape[-1], device=x.device).minimum(last).expand_as(x))


def _deltas(x: Tensor) -> Tensor:
    """Slope over five frames at each of (..., rows, frames).

    Equal to torchaudio's compute_deltas, which cannot be exported for batches of any size.
    """
    frame, last = torch.arange(x.shape[-1], device=x.device), x.shape[-1] - 1
    return (
        sum(
            n * (x[..., (frame + n).clamp(max=last)] - x[..., (frame - n).clamp(min=0)])
            for n in (1, 2)
        )
        / 10
    )


class Research(Frontend):
    """The research's own front-end, which uses the same three seconds of each clip.

    They are padded with zeros on the right; decibels are relative to the clip's maximum; every
    (mel, frame) bin is standardised by itself. It is kept for the research's recipes, and does not
    suit a stream.
    """

    def __init__(
        self, config: ResearchConfig, mean: Optional[Tensor] = None, std: Optional[Tensor] = None
    ):
        self._offset = round(config.offset * config.sample_rate)
        self._length = round(config.duration * config.sample_rate)
        self._n_columns = self._length // config.hop_length + 1
        shape = (config.n_mels, self._n_columns)
        super().__init__(config, config.n_fft, config.hop_length, config.n_mels, shape, mean, std)
        self.mel = MelSpectrogram(
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            n_mels=config.n_mels,
            window_fn=torch.hamming_window,
            pad_mode='constant',
            norm='slaney',
            mel_scale='slaney',
        )

    def n_frames(self, n_samples: Union[int, Tensor]) -> Union[int, Tensor]:
        """The same number for every clip longer than the offset, else 0."""
        return (n_samples > self._offset) * self._n_columns

    def n_samples(self, n_steps: int) -> int:
        """One sample more than the offset."""
        return self._offset + 1

    def spectrum(self, waveform: Tensor) -> Tensor:
        """(..., samples) at `sample_rate` → (..., n_mels, frames) in dB below the maximum."""
        padded = nn.functional.pad(waveform, (0, self._offset + self._length))
        power = self.mel(padded[..., self._offset : self._offset + self._length])
        # librosa's floor of power, which is then the maximum of a silent clip.
        decibels = _decibels(power, -100.0)
        maximum = decibels.amax(dim=(-2, -1), keepdim=True)
        return (decibels - maximum).clamp(min=self.config.floor_db)

    def forward(self, waveform: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(..., samples), true lengths in samples (...) → (..., n_mels, frames)."""
        if lengths is not None:
            position = torch.arange(waveform.shape[-1], device=waveform.device)
            waveform = waveform * (position < lengths[..., None])
        return super().forward(waveform)


class Vggish(Frontend):
    """The input of VGGish (Hershey et al., 2017): log(mel magnitude + 0.01), not standardised.

    25 ms Hann windows every 10 ms, 64 bands between 125 and 7,500 Hz that are triangles on the HTK
    mel scale; constants of vggish_params.py in tensorflow/models, research/audioset/vggish.
    """

    N_FFT = 512
    WIN_LENGTH = 400
    N_MELS = 64

    def __init__(
        self, config: VggishConfig, mean: Optional[Tensor] = None, std: Optional[Tensor] = None
    ):
        hop_length, shape = 160, (self.N_MELS, 1)
        super().__init__(config, self.WIN_LENGTH, hop_length, self.N_MELS, shape, mean, std)
        self.stft = Spectrogram(
            n_fft=self.N_FFT,
            win_length=self.WIN_LENGTH,
            hop_length=hop_length,
            # The window is in the middle of the transform: with this padding frames begin with it.
            pad=(self.N_FFT - self.WIN_LENGTH) // 2,
            power=None,
            center=False,
        )
        # Kaldi's bands are HTK's, triangles on the mel axis (torchaudio's own are on the Hz axis);
        # they have no bin at half of the rate, which is above 7,500 Hz.
        bank, _ = get_mel_banks(
            self.N_MELS, self.N_FFT, config.sample_rate, 125.0, 7_500.0, 0.0, 0.0, 1.0
        )
        self.register_buffer('bank', nn.functional.pad(bank, (0, 1)), persistent=False)

    def rows(self, power: Tensor) -> Tensor:
        """(..., bins, frames) → (..., 64, frames)."""
        return (self.bank @ power.sqrt() + 0.01).log()


class SpeechEncoder(Frontend):
    """The first layers of a published speech encoder, pooled over time: see `SpeechConvolutions`.

    Means and deviations of its channels (statistics pooling, Snyder et al., 2018), one step for all
    of a clip. The input is Whisper's: 25 ms Hann windows every 10 ms, 80 mel bands up to 8 kHz (Slaney
    scale and norm), logarithms to base 10. They are relative to the clip's mean power, where Whisper
    has them relative to full scale: a microphone's gain must not matter.
    """

    is_pooled = True
    N_FFT = 400
    MIN_FRAMES = 16
    MEAN_LEVEL = 1.4
    """Logarithm of the mean mel power of sound that is scaled as Smart Turn scales it, to a variance
    of 1 over eight seconds, three of them speech."""

    def __init__(
        self,
        config: SpeechEncoderConfig,
        mean: Optional[Tensor] = None,
        std: Optional[Tensor] = None,
        weights: Optional[dict[str, Tensor]] = None,
    ):
        """`weights`: of the convolutions; by default the shipped ones."""
        n_mels, shape = SpeechConvolutions.N_MELS, (2 * SpeechConvolutions.WIDTH, 1)
        super().__init__(config, self.N_FFT, 160, n_mels, shape, mean, std)
        self.stft = Spectrogram(self.N_FFT, hop_length=160, power=None, center=False)
        self.mel = MelScale(
            n_mels,
            config.sample_rate,
            n_stft=self.N_FFT // 2 + 1,
            norm='slaney',
            mel_scale='slaney',
        )
        self.convolutions = load_speech_convolutions(weights)

    def tensors(self) -> dict[str, Tensor]:
        """See `Frontend`; with the weights of the convolutions."""
        return super().tensors() | self.convolutions.state_dict()

    def n_steps(self, n_frames: Union[int, Tensor]) -> Union[int, Tensor]:
        """1 for each of at least `MIN_FRAMES`, else 0."""
        is_enough = n_frames >= self.MIN_FRAMES
        return is_enough.long() if isinstance(is_enough, Tensor) else int(is_enough)

    def n_samples(self, n_steps: int) -> int:
        """Those of `MIN_FRAMES`; SerError for more steps than one."""
        if n_steps > 1:
            raise SerError(
                f'the front-end {self.config.kind} has one step for a clip, and the architecture '
                f'needs {n_steps}: perceptron is made for it'
            )
        return (self.MIN_FRAMES - 1) * self.hop_length + self.frame_length

    def rows(self, power: Tensor) -> Tensor:
        """(..., bins, frames) → (..., n_mels, frames) in dB."""
        return _decibels(self.mel(power), -100.0)

    def features(self, spectrum: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """(..., n_mels, frames), true lengths in frames (...) → (..., n_features, 1)."""
        *clips, n_mels, n_frames = spectrum.shape
        frames = torch.arange(n_frames, device=spectrum.device)
        if lengths is None:
            lengths = frames.new_full(clips, n_frames)
        real = frames < lengths[..., None]
        # Not as a power of 10, which onnxruntime computes ten times as slowly.
        power = (spectrum * (math.log(10) / 10)).exp().mean(dim=-2)
        level = (power * real).sum(dim=-1) / lengths.clamp(min=1)
        level = 10 * level.clamp(min=1e-10).log10()[..., None, None]
        x = _limit_range(spectrum, real[..., None, :], self.config.range_db)
        x = (x - level) / 10 + self.MEAN_LEVEL
        x = (x + 4) / 4  # Whisper's own scale
        x, real = x.reshape(-1, n_mels, n_frames), real.reshape(-1, n_frames)
        return self.convolutions(x, real).reshape(*clips, self.n_features, 1)


def voice_mean(mean: Tensor, own: Tensor, weight: Union[float, Tensor]) -> Tensor:
    """The mean to standardise a voice's features by, as `own` (..., n_features, 1).

    `mean`: the training set's; `own`: the voice's, not a number where nothing is known of it;
    `weight`: of the voice's own.
    """
    return torch.where(own.isfinite(), torch.lerp(mean.expand_as(own), own, weight), mean)


_MODULES: dict[type, type[Frontend]] = {
    LogMelConfig: LogMel,
    MfccConfig: Mfcc,
    ResearchConfig: Research,
    VggishConfig: Vggish,
}


def build_frontend(
    config: FrontendConfig,
    mean: Optional[Tensor] = None,
    std: Optional[Tensor] = None,
    weights: Optional[dict[str, Tensor]] = None,
) -> Frontend:
    """The front-end with these settings and statistics (default: none, features are raw).

    `weights`: of a front-end that has some; by default the shipped ones.
    """
    if isinstance(config, SpeechEncoderConfig):
        return SpeechEncoder(config, mean, std, weights)
    if weights:
        names = ', '.join(f'frontend.{name}' for name in weights)
        raise SerError(f'unexpected tensors: {names}')
    return _MODULES[type(config)](config, mean, std)


def fit_frontend(
    config: FrontendConfig,
    waveforms: Iterable[Tensor],
    weights: Optional[Iterable[float]] = None,
) -> Frontend:
    """The front-end with the statistics of `waveforms` ((samples,) each), the training set's.

    `weights`: of the frames of each waveform, around 1; by default all equal.

    Statistics are those of each feature over all frames, or of each bin over all clips if all
    clips have the same frames; VGGish has none. Clips too short for a frame are left out; SerError
    if fewer than two values remain.
    """
    frontend = build_frontend(config)
    if isinstance(frontend, Vggish):
        return frontend
    count, total, squares = 0.0, 0.0, 0.0
    for waveform, own in zip(waveforms, itertools.repeat(1.0) if weights is None else weights):
        if not frontend.n_steps(frontend.n_frames(len(waveform))):
            continue
        features = frontend.features(frontend.spectrum(waveform)).double()
        features = features.reshape(*frontend.mean.shape, -1)
        count += own * features.shape[-1]
        total += own * features.sum(dim=-1)
        squares += own * features.square().sum(dim=-1)
    if count < 2:
        raise SerError(f'{int(count)} frames or clips are too few to standardise the features by')
    mean = total / count
    std = ((squares - count * mean.square()) / (count - 1)).clamp(min=0.0).sqrt()
    # A band that is empty in all clips, such as those above 8 kHz after resampling, stays flat.
    std = std.where(std > 1e-4, 1.0)
    return build_frontend(config, mean, std)
