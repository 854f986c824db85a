"""Print the emotions in sound files."""

import argparse
import contextlib
import dataclasses
import sys
from typing import Any, Optional

from ser_ros import SerError, __version__
from ser_ros.commands.arguments import (
    backend_argument,
    device_argument,
    open_workers,
    path_of,
    reading,
    sound_arguments,
    worker_device,
    workers_arguments,
)
from ser_ros.commands.file_predictor import FilePrediction, FilePredictor
from ser_ros.commands.sounds import Notes
from ser_ros.commands.terminal import later_interrupt, progress_bar
from ser_ros.files import printable, user_path


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `predict`."""
    parser = commands.add_parser(
        'predict',
        parents=[
            device_argument(),
            backend_argument(),
            sound_arguments(),
            workers_arguments('files'),
        ],
        help='print the emotions in sound files',
        description='One JSON line for each window, each utterance, and each file as a whole '
        '(kind: window, utterance, clip), times in seconds. A bundle that cannot stream prints '
        'only the last. "probabilities" are of the window alone; "expression", "confidence", '
        '"valence" and "arousal" come from "smoothed", which continues the windows before it in '
        'the utterance. With a bundle that adapts, utterances are compared with '
        'the earlier ones of the voice; "unadapted" is what an unknown voice would have.',
    )
    parser.add_argument('files', nargs='+', metavar='FILE', help='WAV, FLAC, ...')
    parser.add_argument('--bundle', default='', help='default: the shipped one')
    parser.add_argument('--whole', action='store_true', help='only the line of each file')
    parser.add_argument(
        '--one-voice',
        action='store_true',
        help='the files are of one voice, in this order, that becomes known from file to file '
        '(default: of a new voice each)',
    )
    parser.add_argument(
        '--enrolment',
        type=path_of,
        metavar='FILE',
        help='by which the voice is known before (see enroll --help)',
    )
    parser.add_argument(
        '--adaptation',
        choices=('voice', 'off'),
        default='voice',
        help='whether to compare a voice with how it usually sounds (default voice)',
    )
    parser.add_argument(
        '--neutral-share',
        type=float,
        metavar='SHARE',
        help="expected share of neutral utterances (default: the bundle's, without adaptation that of "
        'the training)',
    )
    parser.add_argument(
        '--rare-ratio',
        type=float,
        metavar='RATIO',
        help='expected disgusted, scared or surprised utterances, each, for a happy, sad or angry one '
        "(default: the bundle's, without adaptation 1)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the estimates; return 1 if a file could not be processed."""
    from ser_ros.journal import Journal, Resumed
    from ser_ros.stream.types import StreamConfig
    from ser_ros.workers import Lost, in_order

    if options.one_voice:
        for option in ('workers', 'cluster', 'resume'):
            if getattr(options, option) not in (None, 1):
                raise SerError(
                    f'--one-voice cannot be used with --{option}: each file needs what was learned '
                    'from those before it; leave one of them out'
                )
    predictor = FilePredictor(
        options.bundle,
        options.backend,
        worker_device(options),
        reading(options),
        StreamConfig(
            adaptation=options.adaptation,
            neutral_share=options.neutral_share,
            rare_ratio=options.rare_ratio,
        ),
        is_whole=options.whole,
        is_one_voice=options.one_voice,
    )
    if options.enrolment and options.adaptation != 'voice':
        raise SerError(
            f'--enrolment is of a voice: with --adaptation {options.adaptation} it is not used'
        )
    loaded = predictor()
    predictor = dataclasses.replace(
        predictor,
        # What `auto` is here, and no other bundle: every worker gives the answers of this process.
        backend=loaded.backend,
        device=loaded.device,
        digest=loaded.digest,
        enrolment=loaded.enrol(options.enrolment) if options.enrolment else None,
    )
    notes, failed = Notes(), False
    with contextlib.ExitStack() as stack:
        journal = None
        if options.resume:
            journal = stack.enter_context(Journal(options.resume, _settings(predictor)))
        workers = stack.enter_context(open_workers(options, predictor, loaded))
        if journal:
            options.interrupted = '; the same command continues with the files that are left'
            workers = Resumed(workers, journal, _key, _encode, _decode)
        bar = stack.enter_context(progress_bar(len(options.files), 'predicting', 'file'))
        for file, prediction in zip(options.files, in_order(workers, options.files)):
            if isinstance(prediction, Lost):
                note = f'{printable(file)}: it ended two workers ({prediction.reason})'
                prediction = FilePrediction([], [('', note)], failed=True)
            with bar.printing():
                _print(prediction, notes)
            bar.update()
            failed |= prediction.failed
    return int(failed)


def _print(prediction: FilePrediction, notes: Notes) -> None:
    for key, line in prediction.notes:
        notes(key, line)
    with later_interrupt():  # no half of a line
        sys.stdout.write(''.join(f'{line}\n' for line in prediction.lines))
        sys.stdout.flush()


def _settings(predictor: FilePredictor) -> dict[str, Any]:
    """All that predictions depend on besides their file."""
    enrolment = predictor.enrolment
    return {
        'ser_ros': __version__,
        'bundle': predictor.digest,
        'backend': predictor.backend,
        'device': predictor.device,
        'reading': dataclasses.asdict(predictor.reading),
        'stream': dataclasses.asdict(predictor.config),
        'enrolment': enrolment and [enrolment.clip_mean.tolist(), enrolment.score.tolist()],
        'whole': predictor.is_whole,
    }


def _key(file: str) -> list[Any]:
    """A file in the journal: another one of the same name is computed again."""
    try:
        status = user_path(file).stat()
    except (OSError, ValueError):
        return [file]
    return [file, status.st_size, status.st_mtime_ns]


def _encode(prediction: FilePrediction) -> Optional[dict[str, Any]]:
    """A file that failed is tried again."""
    return None if prediction.failed else vars(prediction)


def _decode(file: str, values: dict[str, Any]) -> FilePrediction:
    return FilePrediction(**values)
