"""Make an enrolment: what is known of a voice before it speaks."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ser_ros import SerError
from ser_ros.commands.arguments import backend_argument, path_of, reading, sound_arguments
from ser_ros.commands.sounds import SoundReader
from ser_ros.files import printable

if TYPE_CHECKING:
    from ser_ros.bundle_info import BundleInfo
    from ser_ros.stream.enrolment import Phrase


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `enroll`."""
    parser = commands.add_parser(
        'enroll',
        parents=[backend_argument(), sound_arguments()],
        help='make an enrolment of a voice from a few labelled phrases',
        description='From a few phrases that one person says in at least two emotions, compute '
        'how the voice usually sounds, for predict --enrolment and the parameter enrolment of '
        'the emotion node. One phrase of each emotion of the bundle is enough; two are better. The '
        'file holds means, no sound.',
        epilog='example: python -m ser_ros enroll neutral=a.wav happy=b.wav sad=c.wav angry=d.wav '
        '--out anna.json',
    )
    parser.add_argument(
        'phrases',
        nargs='+',
        metavar='EMOTION=FILE',
        help='a phrase and how it is said; or a folder in which each emotion has a folder of its '
        'phrases',
    )
    parser.add_argument('--bundle', default='', help='default: the shipped one')
    parser.add_argument(
        '--out', type=path_of, required=True, metavar='FILE', help='the enrolment to write (JSON)'
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the enrolment, and print how many phrases of each class it was made from."""
    from ser_ros.backends import load_backend
    from ser_ros.stream.enrolment import enrol, save_enrolment

    backend = load_backend(options.bundle, options.backend, 'cpu')
    reader = SoundReader(reading(options))
    phrases = [phrase for text in options.phrases for phrase in _read(text, backend.info, reader)]
    enrolment = enrol(backend, phrases)
    save_enrolment(options.out, enrolment)
    counts = ', '.join(f'{n} {name}' for name, n in enrolment.phrases.items())
    print(f'{options.out}: {counts}')


def _read(text: str, info: 'BundleInfo', reader: SoundReader) -> list['Phrase']:
    """The phrases of one argument; SerError for one without an emotion, or that is not sound."""
    from ser_ros.emotions import EMOTIONS, class_of, plain_word
    from ser_ros.stream.enrolment import Phrase

    phrases = []
    for word, file in _labelled_files(text):
        own = info.classes
        emotion = plain_word(word) if plain_word(word) in own else class_of(word)
        if emotion is None:
            known = ', '.join((*EMOTIONS, *own))
            raise SerError(f'{file}: {word!r} is not an emotion: use one of {known}')
        phrases.append(Phrase(printable(file), emotion, reader.read(file)))
    return phrases


def _labelled_files(text: str) -> list[tuple[str, Path]]:
    """Emotion and file, as the user names them."""
    from ser_ros.files import user_path, walk_files

    word, separator, file = text.partition('=')
    if separator and '/' not in word:
        return [(word, user_path(file))]
    root = user_path(text)
    if not text or not root.is_dir():
        raise SerError(f'{text!r} is neither EMOTION=FILE nor a folder')
    files = sorted(path for path in walk_files(root) if not path.name.startswith('.'))
    if not files:
        raise SerError(f'{root}: there are no files in it')
    return [(path.relative_to(root).parts[0], path) for path in files]
