"""Print the emotions in sound files."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ser_ros import SerError
from ser_ros.commands.arguments import (
    backend_argument,
    device_argument,
    path_of,
    reading,
    sound_arguments,
)
from ser_ros.commands.sounds import SoundReader
from ser_ros.files import printable

if TYPE_CHECKING:
    import numpy as np

    from ser_ros.bundle import Bundle
    from ser_ros.bundle_info import BundleInfo
    from ser_ros.stream.recognizer import Recognizer
    from ser_ros.stream.types import Estimate


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `predict`."""
    parser = commands.add_parser(
        'predict',
        parents=[device_argument(), backend_argument(), sound_arguments()],
        help='print the emotions in sound files',
        description='One JSON line for each window, each utterance, and each file as a whole '
        '(kind: window, utterance, clip), times in seconds. A bundle that cannot stream prints '
        'only the last. "probabilities" are of the window alone; "expression", "confidence", '
        '"valence" and "arousal" come from "smoothed", which continues the windows before it in '
        'the utterance. With a bundle that adapts, utterances are compared with '
        'the earlier ones of the voice; "unadapted" has the probabilities before that.',
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
        help="expected share of neutral utterances, with adaptation (default: the bundle's)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the estimates; return 1 if a file could not be processed."""
    from ser_ros.backends import load_backend
    from ser_ros.bundle_info import load_info
    from ser_ros.stream.adaptation import Adaptation
    from ser_ros.stream.enrolment import load_enrolment
    from ser_ros.stream.recognizer import Recognizer
    from ser_ros.stream.types import StreamConfig

    config = StreamConfig(adaptation=options.adaptation, neutral_share=options.neutral_share)
    recognizer = bundle = None
    if load_info(options.bundle).can_stream:
        backend = load_backend(options.bundle, options.backend, options.device)
        baseline = (
            load_enrolment(options.enrolment, backend).baseline if options.enrolment else None
        )
        recognizer = Recognizer(backend, config=config, adaptation=Adaptation(baseline))
    else:
        bundle = _load_whole(options)
    reader, failed = SoundReader(reading(options)), False
    for file in options.files:
        name = printable(file)
        try:
            if recognizer is None:
                lines = _classify(bundle, file, reader)
            else:
                lines = _stream(recognizer, file, reader, options.one_voice)
        except SerError as error:
            print(f'ser_ros: {error}', file=sys.stderr)
            failed = True
            continue
        except Exception as error:  # whatever is wrong with one file, the others are predicted
            print(f'ser_ros: {name}: {" ".join(str(error).split())}', file=sys.stderr)
            failed = True
            if recognizer is not None:
                recognizer.voice.reset()
            continue
        for line in lines[-1:] if options.whole else lines:
            print(json.dumps({'file': name, **line}))
        if not lines:
            print(f'ser_ros: {name}: no speech was detected', file=sys.stderr)
    return int(failed)


def _load_whole(options: argparse.Namespace) -> 'Bundle':
    """A bundle that classifies whole clips, which torch alone can."""
    import torch

    from ser_ros.bundle import load_bundle
    from ser_ros.stream.torch_backend import select_device

    if options.enrolment:
        raise SerError(
            f'bundle {options.bundle}: it does not adapt to voices, so that it needs no enrolment'
        )
    torch.set_num_threads(1)  # a clip is too little work for several
    bundle = load_bundle(options.bundle)
    bundle.model.to(select_device(options.device))
    return bundle


def _stream(
    recognizer: 'Recognizer', file: str, reader: SoundReader, is_known: bool
) -> list[dict[str, Any]]:
    """The lines of one streamed file; none without detected speech.

    `is_known`: whether its voice is that of the files before.
    """
    import numpy as np

    from ser_ros.audio import SAMPLE_RATE, SECOND
    from ser_ros.stream.types import MIN_PROBABILITY
    from ser_ros.stream.voice import pool_windows

    if not is_known:
        recognizer.reset()
    estimates, n_samples = [], 0
    for samples in reader.blocks(file):
        estimates += recognizer.push(samples, n_samples * SECOND // SAMPLE_RATE)
        n_samples += len(samples)
    estimates += recognizer.flush()
    if not estimates:
        return []
    windows = [e for e in estimates if e.is_window]
    lengths = [e.n_samples for e in windows]
    score = pool_windows([e.log_probabilities for e in windows], lengths)
    unadapted = np.log(np.maximum([e.unadapted for e in windows], MIN_PROBABILITY))
    clip = _whole(
        recognizer.info,
        SAMPLE_RATE,
        n_samples,
        score,
        pool_windows(unadapted, lengths),
        estimates[0].n_utterances,
    )
    names = recognizer.info.class_names
    lines = [_line('utterance' if e.is_final else 'window', e, names) for e in estimates]
    return [*lines, _line('clip', clip, names)]


def _classify(bundle: 'Bundle', file: str, reader: SoundReader) -> list[dict[str, Any]]:
    """The line of one file that is classified as a whole."""
    import torch

    from ser_ros.bundle_info import BundleError

    rate = bundle.frontend.sample_rate
    samples = reader.read(file, rate)
    try:
        score = bundle.classify(torch.from_numpy(samples)).double().numpy()
    except BundleError as error:
        raise SerError(f'{printable(file)}: {error}') from error
    return [
        _line(
            'clip', _whole(bundle.info, rate, len(samples), score, score), bundle.info.class_names
        )
    ]


def _whole(
    info: 'BundleInfo',
    rate: int,
    n_samples: int,
    score: 'np.ndarray',
    unadapted: 'np.ndarray',
    n_utterances: int = 0,
) -> 'Estimate':
    """The estimate of a whole clip, of `n_samples` at `rate` Hz.

    `score`, `unadapted`: (n_classes,) log-probabilities up to a constant. `n_utterances`: of the
    voice, before the clip.
    """
    from ser_ros.audio import SECOND
    from ser_ros.emotions import ExpressionMap
    from ser_ros.stream.types import Estimate
    from ser_ros.stream.voice import softmax

    probabilities = softmax(score)
    expressions = ExpressionMap(info.class_names, info.classes)
    expression, confidence = expressions.decide(probabilities, info.threshold)
    valence, arousal = expressions.valence_arousal(probabilities)
    return Estimate(
        stamp_ns=n_samples * SECOND // rate,
        probabilities=probabilities,
        expression=expression,
        confidence=confidence,
        valence=valence,
        arousal=arousal,
        is_final=True,
        is_window=False,
        n_samples=n_samples,
        unadapted=softmax(unadapted),
        n_utterances=n_utterances,
    )


def _line(kind: str, estimate: 'Estimate', class_names: Sequence[str]) -> dict[str, Any]:
    from ser_ros.audio import SECOND

    def by_class(probabilities: 'np.ndarray') -> dict[str, float]:
        return {name: round(float(p), 4) for name, p in zip(class_names, probabilities)}

    return {
        'time': round(estimate.stamp_ns / SECOND, 3),
        'kind': kind,
        'expression': estimate.expression,
        'confidence': round(float(estimate.confidence), 4),
        'valence': round(float(estimate.valence), 4),
        'arousal': round(float(estimate.arousal), 4),
        'probabilities': by_class(estimate.probabilities),
        'smoothed': by_class(
            estimate.probabilities if estimate.smoothed is None else estimate.smoothed
        ),
        'unadapted': by_class(estimate.unadapted),
        'utterances': estimate.n_utterances,
    }
