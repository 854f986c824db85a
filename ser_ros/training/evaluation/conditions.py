"""Conditions under which a robot receives sound: noise, rooms, bands, codecs, levels.

Each changes a clip, with the silence around it, on its way to the recogniser. The same clip, noise
and condition give the same samples.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from scipy.signal import butter, fftconvolve, sosfilt

from ser_ros import SerError
from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.sources import read_audio
from ser_ros.audio.vad import SileroVad, speech_span
from ser_ros.bundle import Bundle
from ser_ros.training.data.noise import noise_for_evaluation, recordings
from ser_ros.training.evaluation.batches import Predict
from ser_ros.training.evaluation.clip_result import ClipResult
from ser_ros.training.evaluation.metrics import KEPT, accuracy_change, compute_metrics
from ser_ros.training.evaluation.prediction import Degrade, amplify

SNRS_DB = (20, 10, 5, 0)
DISTANCES = {'near': 0.5, 'far': 3.0}
"""Metres from the voice to the microphone."""

ROOM = (5.0, 4.0, 2.5)
MICROPHONE = (1.0, 1.7, 1.1)
RT60 = 0.5
"""Seconds in which the sound in `ROOM` (metres) decays by 60 dB, by Sabine's formula: a living room."""

TELEPHONE_RATE = 8_000
TELEPHONE_BAND = (300, 3_400)
"""Hz."""

CODECS = {
    'Opus, 11 kbit/s': {'format': 'OGG', 'subtype': 'OPUS', 'compression_level': 0.98},
    'MP3, 26 kbit/s': {'format': 'MP3', 'subtype': 'MPEG_LAYER_III', 'compression_level': 0.8},
}
"""Settings of soundfile, and the bit rate that speech then has."""

GAINS_DB = (20, -20)

QUIETEST_NOISE = 2.0**-15
"""One step of 16 bits; a quieter recording is silent."""


@dataclass(frozen=True)
class Conditions:
    """The conditions of one evaluation, by name, and how they were made."""

    protocol: str
    degrades: Mapping[str, Degrade]


def read_conditions(noise_folder: Path) -> Conditions:
    """All conditions, with noise from a folder, see `noise_for_evaluation`.

    SerError for a folder without such noise, and for a recording that is silent or no sound.
    """
    paths = noise_for_evaluation(noise_folder)
    noise = [read_audio(path) for path in paths]
    for path, samples in zip(paths, noise):
        if np.abs(samples).max() < QUIETEST_NOISE:
            raise SerError(f'noise {path} is silent: remove it')
    protocol = (
        f'noise: relative to the level of the speech, recordings below '
        f'{Path(noise_folder).resolve().name} that no training with this folder uses '
        f'({len(recordings(paths))}); room: simulated by image sources, '
        f'{" × ".join(f"{side:g}" for side in ROOM)} m, {RT60:g} s of reverberation, at the level '
        f'of the clip; telephone: {TELEPHONE_BAND[0]} to {TELEPHONE_BAND[1]} Hz in G.711'
    )
    degrades: dict[str, Degrade] = {}
    for snr in SNRS_DB:
        degrades[f'noise, SNR {snr} dB'] = partial(_add_noise, noise=noise, snr_db=snr)
    for name, distance in DISTANCES.items():
        response = room_response(distance)
        degrades[f'{name} in a room, {distance:g} m'] = partial(_reverberate, response=response)
    degrades['telephone, 8 kHz'] = _telephone
    for name, settings in CODECS.items():
        degrades[name] = partial(_encode, settings=settings)
    for gain in GAINS_DB:
        degrades[f'gain {gain:+d} dB'] = partial(amplify, gain_db=gain)
    return Conditions(protocol, degrades)


def _add_noise(
    samples: np.ndarray, rng: np.random.Generator, noise: Sequence[np.ndarray], snr_db: float
) -> np.ndarray:
    """Add a stretch of one of the recordings, repeated if it is shorter."""
    recording = noise[rng.integers(len(noise))]
    recording = np.tile(recording, -(-len(samples) // len(recording)))
    start = rng.integers(len(recording) - len(samples) + 1)
    stretch = recording[start : start + len(samples)]
    gain = level(_speech(samples)) / max(level(stretch), QUIETEST_NOISE)
    mixture = samples + stretch * np.float32(gain * 10 ** (-snr_db / 20))
    return mixture / max(1.0, np.abs(mixture).max())


def _speech(samples: np.ndarray) -> np.ndarray:
    """The samples from the first to the last voice; all of them where none is detected."""
    span = speech_span(SileroVad(), samples)
    return samples if span is None else samples[span.start : span.end]


def level(samples: np.ndarray) -> float:
    """The root mean square of (n,) samples."""
    return float(np.sqrt(np.mean(samples**2)))


def room_response(distance: float) -> np.ndarray:
    """(n,) samples of the sound of an impulse at this distance from the microphone.

    Image sources, so that early reflections come from walls and the direct sound weakens with the
    distance: other rooms than the decaying noise of the augmentation, which a model may know.
    """
    import pyroomacoustics  # here, because importing it takes seconds

    absorption, order = pyroomacoustics.inverse_sabine(RT60, ROOM)
    room = pyroomacoustics.ShoeBox(
        ROOM, SAMPLE_RATE, materials=pyroomacoustics.Material(absorption), max_order=order
    )
    room.add_source((MICROPHONE[0] + distance, *MICROPHONE[1:]))
    room.add_microphone(MICROPHONE)
    room.compute_rir()
    return room.rir[0][0].astype(np.float32)


def _reverberate(
    samples: np.ndarray, rng: np.random.Generator, response: np.ndarray
) -> np.ndarray:
    """The sound in a room, with the energy it had without."""
    wet = fftconvolve(samples, response)[: len(samples)]
    return wet * (level(samples) / max(level(wet), QUIETEST_NOISE))


def _telephone(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    narrow = soxr.resample(samples, SAMPLE_RATE, TELEPHONE_RATE)
    band = butter(4, TELEPHONE_BAND, 'bandpass', fs=TELEPHONE_RATE, output='sos')
    narrow = _through_file(sosfilt(band, narrow), TELEPHONE_RATE, format='WAV', subtype='ULAW')
    return _fit(soxr.resample(narrow, TELEPHONE_RATE, SAMPLE_RATE), len(samples))


def _encode(
    samples: np.ndarray, rng: np.random.Generator, settings: Mapping[str, Any]
) -> np.ndarray:
    return _fit(_through_file(samples, SAMPLE_RATE, **settings), len(samples))


def _through_file(samples: np.ndarray, rate: int, **settings: Any) -> np.ndarray:
    """Float32 (n,) samples, written as a sound file and read again."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **settings)
    file.seek(0)
    return soundfile.read(file, dtype='float32')[0]


def _fit(samples: np.ndarray, n: int) -> np.ndarray:
    """(n,) samples; a codec may add some at the end, or omit them."""
    return np.pad(samples, (0, max(0, n - len(samples))))[:n]


def evaluate_conditions(
    bundle: Bundle,
    conditions: Conditions,
    clean: Sequence[ClipResult],
    class_names: Sequence[str],
    predict: Predict,
) -> dict[str, Any]:
    """The metrics `conditions` of a subset whose unchanged clips have the results `clean`.

    `rows`: condition → `metrics.KEPT` and `metrics.accuracy_change`, None for the clean clips, which are
    the first row. Predictions are restricted to `class_names`, as those in `clean`. `predict`:
    predicts clips under these conditions.
    """
    clips = [result.clip for result in clean]
    all_names = bundle.info.class_names
    unchanged = {'accuracy_change': None, 'accuracy_change_interval': None}
    rows = {'clean': {**_metrics(clean, class_names), **unchanged}}
    for name in conditions.degrades:
        results = predict(clips, name)
        if len(class_names) < len(all_names):
            results = [result.restricted_to(class_names, all_names) for result in results]
        change = accuracy_change(results, clean, class_names)
        rows[name] = {**_metrics(results, class_names), **change}
    return {'protocol': conditions.protocol, 'rows': rows}


def _metrics(results: Sequence[ClipResult], class_names: Sequence[str]) -> dict[str, Any]:
    metrics = compute_metrics(results, class_names)
    return {name: metrics[name] for name in KEPT}
