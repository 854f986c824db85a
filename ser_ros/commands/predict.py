"""Print the emotions in sound files."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any, Optional

from ser_ros import SerError
from ser_ros.commands.arguments import device_argument

if TYPE_CHECKING:
    import numpy as np

    from ser_ros.bundle import Bundle
    from ser_ros.stream.recognizer import Recognizer


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `predict`."""
    parser = commands.add_parser(
        'predict',
        parents=[device_argument()],
        help='print the emotions in sound files',
        description='One JSON line for each window, each utterance, and each file as a whole '
        '(kind: window, utterance, clip), times in seconds. A bundle that cannot stream prints '
        'only the last.',
    )
    parser.add_argument('files', nargs='+', metavar='FILE', help='WAV, FLAC, ...')
    parser.add_argument('--bundle', default='', help='default: the shipped one')
    parser.add_argument('--whole', action='store_true', help='only the line of each file')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the estimates; return 1 if a file could not be processed."""
    import torch

    from ser_ros.bundle import load_bundle
    from ser_ros.stream.engine import select_device
    from ser_ros.stream.recognizer import Recognizer
    from ser_ros.stream.voice import can_stream

    torch.set_num_threads(1)  # a window is too little work for several
    bundle = load_bundle(options.bundle)
    if can_stream(bundle):
        recognizer = Recognizer(bundle, options.device)
    else:
        recognizer = None
        bundle.model.to(select_device(options.device))
    failed = False
    for file in options.files:
        try:
            lines = _classify(bundle, file) if recognizer is None else _stream(recognizer, file)
        except SerError as error:
            print(f'ser_ros: {error}', file=sys.stderr)
            failed = True
            continue
        for line in lines[-1:] if options.whole else lines:
            print(json.dumps({'file': file, **line}))
        if not lines:
            print(f'ser_ros: {file}: no speech was detected', file=sys.stderr)
    return int(failed)


def _stream(recognizer: 'Recognizer', file: str) -> list[dict[str, Any]]:
    """The lines of one streamed file; none without detected speech."""
    from ser_ros.audio import SAMPLE_RATE, SECOND
    from ser_ros.audio.sources import read_audio
    from ser_ros.stream.voice import pool_windows

    samples = read_audio(file)
    recognizer.reset()
    estimates = recognizer.push(samples, 0) + recognizer.flush()
    if not estimates:
        return []
    names = recognizer.bundle.info.class_names
    lines = [
        _line(
            e.stamp_ns / SECOND,
            'utterance' if e.is_final else 'window',
            e.expression,
            (e.confidence, e.valence, e.arousal),
            dict(zip(names, e.probabilities)),
        )
        for e in estimates
    ]
    windows = [e for e in estimates if e.is_window]
    score = pool_windows([e.log_probabilities for e in windows], [e.n_samples for e in windows])
    return [*lines, _clip_line(recognizer.bundle, len(samples) / SAMPLE_RATE, score)]


def _classify(bundle: 'Bundle', file: str) -> list[dict[str, Any]]:
    """The line of one file that is classified as a whole."""
    import torch

    from ser_ros.audio.sources import read_audio
    from ser_ros.bundle import BundleError

    rate = bundle.frontend.sample_rate
    samples = read_audio(file, rate)
    try:
        score = bundle.classify(torch.from_numpy(samples)).double().numpy()
    except BundleError as error:
        raise SerError(f'{file}: {error}') from error
    return [_clip_line(bundle, len(samples) / rate, score)]


def _clip_line(bundle: 'Bundle', seconds: float, score: 'np.ndarray') -> dict[str, Any]:
    """`score`: (n_classes,) log-probabilities of the whole clip, up to a constant."""
    import numpy as np

    from ser_ros.emotions import ExpressionMap

    probabilities = np.exp(score - score.max())
    probabilities /= probabilities.sum()
    expressions = ExpressionMap(bundle.info.class_names)
    expression, confidence = expressions.decide(probabilities, bundle.info.threshold)
    return _line(
        seconds,
        'clip',
        expression,
        (confidence, *expressions.valence_arousal(probabilities)),
        dict(zip(bundle.info.class_names, probabilities)),
    )


def _line(
    seconds: float,
    kind: str,
    expression: Optional[str],
    values: tuple[float, float, float],
    probabilities: dict[str, float],
) -> dict[str, Any]:
    confidence, valence, arousal = (round(float(value), 4) for value in values)
    return {
        'time': round(seconds, 3),
        'kind': kind,
        'expression': expression,
        'confidence': confidence,
        'valence': valence,
        'arousal': arousal,
        'probabilities': {name: round(float(p), 4) for name, p in probabilities.items()},
    }
