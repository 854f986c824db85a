"""Which speakers are trained on, chosen by, and tested on."""

from collections.abc import Sequence
from dataclasses import dataclass

from ser_ros import SerError
from ser_ros.training.corpora import Clip

RAVDESS_FOLDS = {
    1: ('01', '11', '20', '21'),
    2: ('04', '10', '12', '14'),
    3: ('08', '09', '19', '23'),
    4: ('03', '05', '07', '24'),
    5: ('02', '15', '16', '18'),
    6: ('06', '13', '17', '22'),
}
"""Test actors of the six speaker-independent folds of EmoBox (Ma et al., 2024)."""


@dataclass(frozen=True)
class Split:
    """Three parts that share no speaker."""

    train: list[Clip]
    validation: list[Clip]
    test: list[Clip]

    def speakers(self) -> dict[str, list[str]]:
        """Name of each part → its speakers, sorted."""
        return {
            part: sorted({clip.speaker for clip in clips}) for part, clips in vars(self).items()
        }


def speaker_split(
    clips: Sequence[Clip], test_speakers: Sequence[str], validation_speakers: Sequence[str]
) -> Split:
    """Split by speaker; SerError for a speaker in two parts or without clips."""
    if both := set(test_speakers) & set(validation_speakers):
        raise SerError(
            f'speakers both in test and validation: {", ".join(sorted(map(str, both)))}'
        )
    known = {clip.speaker for clip in clips}
    if missing := {*test_speakers, *validation_speakers} - known:
        raise SerError(f'the corpus has no speakers {", ".join(sorted(map(str, missing)))}')
    if not known - {*test_speakers, *validation_speakers}:
        raise SerError('no speaker is left for training')
    return Split(
        [c for c in clips if c.speaker not in {*test_speakers, *validation_speakers}],
        [c for c in clips if c.speaker in validation_speakers],
        [c for c in clips if c.speaker in test_speakers],
    )
