"""What goes into a stream and comes out of it: settings, estimates, counters."""

from collections.abc import Generator
from dataclasses import dataclass, field, fields
from typing import Any, Optional, Union

import numpy as np

from ser_ros import SerError
from ser_ros.audio.vad import SileroVad
from ser_ros.bundle_info import AdaptationInfo

MIN_PROBABILITY = 1e-300
"""A smaller probability is replaced by this one before its logarithm is taken."""


def _setting(default: Optional[float], description: str, low: float, high: float) -> Any:
    """A number between `low` and `high`; the nodes declare their parameters from these."""
    return field(default=default, metadata={'description': description, 'limits': (low, high)})


def _choice(default: str, description: str, choices: tuple[str, ...]) -> Any:
    """A word, one of `choices`."""
    return field(default=default, metadata={'description': description, 'choices': choices})


@dataclass(frozen=True)
class StreamConfig:
    """How a stream is cut into windows and utterances, and how they are decided.

    A model that needs longer windows than `min_utterance` or `first_estimate` gets what it needs.
    Raises SerError for a setting out of its range.
    """

    hop: float = _setting(
        0.25, 'Seconds between two windows; each ends with a chunk of 0.032 s.', 0.01, 10.0
    )
    first_estimate: float = _setting(
        1.0, 'Seconds of speech before the first estimate.', 0.2, 60.0
    )
    min_utterance: float = _setting(
        0.3, 'Seconds; shorter utterances are counted and dropped.', 0.2, 60.0
    )
    max_utterance: float = _setting(10.0, 'Seconds; longer utterances are cut.', 1.0, 3600.0)
    end_silence: float = _setting(0.5, 'Seconds without voice that end an utterance.', 0.1, 10.0)
    preroll: float = _setting(
        0.1, 'Seconds before detected speech that a window includes: soft onsets.', 0.0, 0.5
    )
    vad_threshold: float = _setting(
        0.5, 'Probability from which on a chunk counts as voice.', 0.2, 1.0
    )
    smoothing: float = _setting(1.0, 'Time constant of the running decision, s.', 0.01, 60.0)
    lead: float = _setting(0.1, 'Probability by which a new running decision must lead.', 0.0, 1.0)
    threshold: Optional[float] = _setting(
        None,
        'Probability by which a published expression leads the next one at least; by default the '
        "bundle's.",
        0.0,
        1.0,
    )
    gain_db: float = _setting(0.0, 'Gain applied to the sound, in dB.', -60.0, 60.0)
    gap_tolerance: float = _setting(0.1, 'Seconds by which stamps may deviate.', 0.001, 10.0)
    adaptation: str = _choice(
        'voice',
        'What a voice is compared with: how it usually sounds (voice), how all voices here do '
        '(room), or the training set alone (off).',
        ('voice', 'room', 'off'),
    )
    adaptation_memory: Optional[float] = _setting(
        None,
        'Utterances after which a voice counts as much as the training set; by default the '
        "bundle's.",
        0.1,
        1e6,
    )
    neutral_share: Optional[float] = _setting(
        None,
        "Expected share of neutral utterances; by default the bundle's, and without adaptation "
        'that of the training.',
        0.01,
        0.99,
    )
    rare_ratio: Optional[float] = _setting(
        None,
        'Expected disgusted, scared or surprised utterances, each, for a happy, sad or angry one; '
        "by default the bundle's, and without adaptation 1.",
        0.01,
        100.0,
    )

    @classmethod
    def by_itself(cls, adaptation: AdaptationInfo) -> 'StreamConfig':
        """Without adaptation, but with the bundle's expected shares.

        Compared with the default settings it shows what the adaptation alone does.
        """
        return cls(
            adaptation='off',
            neutral_share=adaptation.neutral_share,
            rare_ratio=adaptation.rare_ratio,
        )

    def __post_init__(self):
        for setting in fields(self):
            value = getattr(self, setting.name)
            if choices := setting.metadata.get('choices'):
                if value not in choices:
                    raise SerError(f'{setting.name} is {value!r}, not one of {", ".join(choices)}')
                continue
            low, high = setting.metadata['limits']
            if value is not None and not low <= value <= high:
                raise SerError(f'{setting.name} is {value}, not between {low} and {high}')
        if not self.min_utterance <= self.first_estimate <= self.max_utterance:
            raise SerError(
                'min_utterance, first_estimate and max_utterance must rise in this order'
            )


@dataclass(frozen=True)
class Estimate:
    """The emotion of the speech up to `stamp_ns`."""

    stamp_ns: int
    """End of the window, in the time of the stamps that were pushed."""
    probabilities: np.ndarray
    """(n_classes,), calibrated: of the window alone; in a final estimate, of the utterance."""
    expression: Optional[str]
    """The decided ROS4HRI expression; None where it is too uncertain."""
    confidence: float
    """Probability of the decided expression, smoothed over the utterance, certain or not."""
    valence: float
    arousal: float
    """Expectations in [-1, 1] under the smoothed probabilities."""
    is_final: bool
    """Whether this is the one decision for a finished utterance."""
    is_window: bool
    """Whether `probabilities` are of one window; of final estimates only a short utterance's."""
    n_samples: int
    """Length of the window at 16 kHz; in a final estimate, of the utterance's longest."""
    unadapted: np.ndarray
    """(n_classes,) what `probabilities` would be of an unknown voice, all classes equally frequent."""
    n_utterances: int
    """Earlier utterances that the adaptation comes from; 0 without adaptation."""
    silence_ns: int = 0
    """How much sound after `stamp_ns` was waited for: the silence that ended the utterance."""
    smoothed: Optional[np.ndarray] = field(default=None, compare=False)
    """(n_classes,) smoothed over the utterance, that `confidence`, `valence` and `arousal` come from;
    None: `probabilities` themselves."""

    @property
    def log_probabilities(self) -> np.ndarray:
        """(n_classes,) logarithms of `probabilities`, all finite: see `MIN_PROBABILITY`."""
        return np.log(np.maximum(self.probabilities, MIN_PROBABILITY))


@dataclass
class StreamCounters:
    """What happened to the samples so far."""

    samples: int = 0
    windows: int = 0
    utterances: int = 0
    short_utterances: int = 0
    """Too short to be classified."""
    broken_utterances: int = 0
    """Forgotten by a reset, without a decision."""
    gaps: int = 0
    """Times that the stamps jumped and the stream restarted."""
    skipped_windows: int = 0
    """Left out to catch up, or because the GPU had no memory for them."""


@dataclass(frozen=True)
class Window:
    """A window to classify."""

    spectrum: np.ndarray
    """(n_rows, frames) of the front-end; valid until the next request."""
    n_samples: int
    """Length at 16 kHz."""
    mean: Optional[np.ndarray]
    """(n_features, 1) of the voice's features; None: those of the training set."""


@dataclass(frozen=True)
class Score:
    """What a model says of a window."""

    log_probabilities: np.ndarray
    """(n_classes,), calibrated."""
    unadapted: np.ndarray
    """(n_classes,) the same with features standardised by the training set, not by the voice."""
    clip_mean: np.ndarray
    """(n_features, 1): the mean of each feature, see `Frontend.clip_mean`."""


@dataclass(frozen=True)
class Chunk:
    """A chunk of sound in which to detect speech."""

    vad: SileroVad
    samples: np.ndarray
    """float32 (CHUNK,)."""


Requests = Generator[Union[Chunk, Window], Union[float, Optional[Score]], list[Estimate]]
"""A generator that returns estimates. It yields a chunk and receives the probability of speech in it,
or a window and receives its score, or None where there was no memory for it."""
