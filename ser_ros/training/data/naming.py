"""The file names of published corpora, and the labels in them."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional


@dataclass(frozen=True)
class FileName:
    """The labels in the name of one file."""

    recording: tuple[str, ...]
    """The same for every copy of a recording, in any folder and format."""
    label: str
    speaker: str
    gender: Optional[str]
    age: Optional[int]
    intensity: Optional[str]
    statement: Optional[str]
    channel: str
    """Kind of the recording, in corpora with more than speech."""


@dataclass(frozen=True)
class Naming:
    """How one corpus names its files."""

    corpus: str
    example: str
    pattern: re.Pattern
    """Matches `folder/stem`; groups `label`, `speaker` and others that distinguish recordings."""
    genders: dict[str, str]
    """Speaker → female or male."""
    intensities: dict[str, str] = field(default_factory=dict)
    speech: str = ''
    """The group `channel` of recordings of speech alone, in corpora with more."""
    misspelt: dict[str, str] = field(default_factory=dict)
    """Misspelt names as published → correct names."""
    labels: dict[str, str] = field(default_factory=dict)
    """A part of the name → the label that it stands for, where it is not the label itself."""
    faulty: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Names of faulty recordings → reason and detail, see `corpora.Problem`."""
    ages: dict[str, int] = field(default_factory=dict)
    """Speaker → years, where the corpus states them."""

    def parse(self, path: Path) -> Optional[FileName]:
        """The labels in the file's name; None if it is not a name of this corpus."""
        stem = self.misspelt.get(path.stem, path.stem)
        match = self.pattern.fullmatch(f'{path.parent.name}/{stem}')
        if match is None:
            return None
        groups = match.groupdict()
        channel = groups.pop('channel', '')
        return FileName(
            recording=tuple(groups.values()),
            label=self.labels.get(groups['label'], groups['label']),
            speaker=groups['speaker'],
            gender=self.genders.get(groups['speaker']),
            age=self.ages.get(groups['speaker']),
            intensity=self.intensities.get(groups.get('intensity', '')),
            statement=groups.get('statement'),
            channel=channel,
        )


def _pattern(text: str) -> re.Pattern:
    return re.compile('(?:.*/)?' + text)


def _odd_men(n: int) -> dict[str, str]:
    """Speakers 01 to `n`; odd numbers are men, even ones women."""
    return {f'{speaker:02}': 'male' if speaker % 2 else 'female' for speaker in range(1, n + 1)}


# fmt: off
CREMA_D_WOMEN = (
    1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025,
    1028, 1029, 1030, 1037, 1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060,
    1061, 1063, 1072, 1073, 1074, 1075, 1076, 1078, 1079, 1082, 1084, 1089, 1091,
)

CREMA_D_AGES = (
    51, 21, 21, 42, 29, 58, 38, 46, 24, 27, 32, 23, 22, 24, 32, 61, 42, 25, 29, 61, 30, 22, 22,
    59, 48, 33, 44, 57, 33, 42, 31, 30, 31, 74, 48, 49, 45, 21, 51, 42, 42, 37, 25, 40, 22, 22,
    22, 38, 25, 62, 56, 33, 35, 36, 57, 52, 25, 36, 21, 28, 51, 56, 33, 53, 38, 25, 66, 34, 27,
    25, 41, 33, 24, 31, 40, 25, 20, 21, 21, 21, 30, 20, 45, 46, 34, 33, 62, 23, 24, 50, 29,
)
# fmt: on
"""Women among the actors 1001 to 1091 (the other 48 are men), and the years of all, from the corpus's
VideoDemographics.csv."""

NAMINGS = {
    naming.corpus: naming
    for naming in (
        # Livingstone & Russo, 2018, doi 10.1371/journal.pone.0196391.
        Naming(
            'RAVDESS',
            '03-01-05-02-01-01-12.wav',
            _pattern(
                r'(?P<channel>0[1-3]-0[12])-(?P<label>\d\d)-(?P<intensity>0[12])-'
                r'(?P<statement>0[12])-(?P<repetition>0[12])-(?P<speaker>[012]\d)'
            ),
            _odd_men(24),
            {'01': 'normal', '02': 'strong'},
            speech='03-01',
            # Byte-identical as published; in re-encoded copies no hash finds it.
            faulty={
                '03-01-03-01-02-02-07': (
                    'identical recording',
                    'published twice, also as 03-01-03-01-02-01-07',
                )
            },
        ),
        # Haq & Jackson, 2009; DC/a01.wav as published, or DC_a01.wav all in one folder.
        Naming(
            'SAVEE',
            'DC_a01.wav',
            _pattern(r'(?P<speaker>DC|JE|JK|KL)[/_](?P<label>[a-z]{1,2})(?P<sentence>\d\d)'),
            dict.fromkeys(('DC', 'JE', 'JK', 'KL'), 'male'),
        ),
        # Cao et al., 2014, doi 10.1109/TAFFC.2014.2336244; its README names the faulty files.
        Naming(
            'CREMA-D',
            '1001_DFA_ANG_XX.wav',
            _pattern(
                r'(?P<speaker>1\d{3})_(?P<statement>[A-Z]{3})_(?P<label>[A-Z]{3})_'
                r'(?P<intensity>LO|MD|HI|XX)'
            ),
            {
                str(speaker): 'female' if speaker in CREMA_D_WOMEN else 'male'
                for speaker in range(1001, 1092)
            },
            {'LO': 'low', 'MD': 'medium', 'HI': 'high'},
            misspelt={'1040_ITH_SAD_X': '1040_ITH_SAD_XX'},
            faulty={
                '1064_IEO_DIS_MD': (
                    'known to be faulty',
                    'a minute with all emotions',
                )
            },
            ages={str(speaker): age for speaker, age in enumerate(CREMA_D_AGES, 1001)},
        ),
        # Pichora-Fuller & Dupuis, 2020, doi 10.5683/SP2/E8H2MF.
        Naming(
            'TESS',
            'OAF_back_angry.wav',
            _pattern(r'(?P<speaker>OAF|YAF)_(?P<statement>[^/_]+)_(?P<label>[a-z]+)'),
            {'OAF': 'female', 'YAF': 'female'},
            misspelt={'OA_bite_neutral': 'OAF_bite_neutral'},
            ages={'OAF': 64, 'YAF': 26},
        ),
        # Burkhardt et al., 2005; speakers from its documentation.
        Naming(
            'EmoDB',
            '03a01Fa.wav',
            _pattern(
                r'(?P<speaker>\d\d)(?P<statement>[ab]\d\d)(?P<label>[A-Z])(?P<version>[a-z]?)'
            ),
            {
                **dict.fromkeys(('03', '10', '11', '12', '15'), 'male'),
                **dict.fromkeys(('08', '09', '13', '14', '16'), 'female'),
            },
            ages={
                **{'03': 31, '08': 34, '09': 21, '10': 32, '11': 26},
                **{'12': 30, '13': 32, '14': 35, '15': 25, '16': 31},
            },
        ),
        # Das et al., 2022, doi 10.1016/j.dib.2022.108091. Angry and surprised are always strong,
        # the others normal: this distinguishes it from RAVDESS. Three of its files begin with 01.
        Naming(
            'BanglaSER',
            '03-01-01-01-03-03-34.flac',
            _pattern(
                r'0[1-3]-01-(?=(?:0[125]-01|0[34]-02)-)(?P<label>\d\d)-'
                r'(?P<intensity>0[12])-(?P<statement>0[1-3])-(?P<repetition>0[1-3])-'
                r'(?P<speaker>[0-3]\d)'
            ),
            _odd_men(34),
            {'01': 'normal', '02': 'strong'},
        ),
        # Christop, 2024, arXiv 2404.06292; genders and ages from its table of samples.
        Naming(
            'nEMO',
            'SM0_anger_1.wav',
            _pattern(r'(?P<speaker>[A-Z]{2}\d)_(?P<label>[a-z]+)_(?P<statement>\d{1,2})'),
            {
                **dict.fromkeys(('EB0', 'IC0', 'KD0', 'MK0'), 'female'),
                **dict.fromkeys(('KS0', 'MP0', 'SM0', 'TP0', 'WR0'), 'male'),
            },
            ages={
                **{'EB0': 27, 'IC0': 28, 'KD0': 28, 'KS0': 23, 'MK0': 23},
                **{'MP0': 24, 'SM0': 24, 'TP0': 26, 'WR0': 23},
            },
        ),
        # The folder is the speaker; the number is the time of the recording.
        Naming(
            'Indian-EmoSpeech-Command',
            '001/help_angry_1562996360436.wav',
            _pattern(
                r'(?P<speaker>\d{3})/(?P<statement>bacho|go|help|no|stop|yes)_'
                r'(?P<label>[a-z]+)_(?P<time>\d+|\?\?)'
            ),
            {},
        ),
        # Korean dialogues for robots; the number is that of the sentence, a hundred an emotion.
        Naming(
            'emotiontts_open_db',
            'nea00101.wav',
            _pattern(r'(?P<speaker>[a-z]{3})00(?P<label>\d{3})'),
            {},
            labels={
                f'{number:03}': f'{(number - 1) // 100 * 100 + 1:03}' for number in range(1, 401)
            },
        ),
        # Buhl, 2023, arXiv 2301.00508: contributor, category and take of a burst without words.
        Naming(
            'EmoGator',
            '000001-02-1.mp3',
            _pattern(r'(?P<speaker>\d{6})-(?P<label>\d\d)-(?P<take>\d)'),
            {},
        ),
    )
}
"""Corpus → how it names its files."""
