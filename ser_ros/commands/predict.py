"""Print the emotions heard in sound files."""

import argparse
import json
import sys

from ser_ros import SerError
from ser_ros.commands.arguments import device_argument


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `predict`."""
    parser = commands.add_parser(
        'predict',
        parents=[device_argument()],
        help='print the emotions heard in sound files',
        description='One JSON line for each estimate of each file, times in seconds.',
    )
    parser.add_argument('files', nargs='+', metavar='FILE', help='WAV, FLAC, ...')
    parser.add_argument('--bundle', default='', help='default: the shipped one')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the estimates; 1 when a file could not be read."""
    import torch

    from ser_ros.audio.sources import read_audio
    from ser_ros.bundle import load_bundle
    from ser_ros.recognizer import Recognizer

    torch.set_num_threads(1)  # a window is too little work to share
    recognizer = Recognizer(load_bundle(options.bundle), options.device)
    names = recognizer.bundle.info.class_names
    failed = False
    for file in options.files:
        try:
            samples = read_audio(file)
        except SerError as error:
            print(f'ser_ros: {error}', file=sys.stderr)
            failed = True
            continue
        recognizer.reset()
        estimates = recognizer.push(samples, 0) + recognizer.flush()
        for estimate in estimates:
            print(
                json.dumps(
                    {
                        'file': file,
                        'time': round(estimate.stamp_ns / 1e9, 3),
                        'kind': 'utterance' if estimate.is_final else 'window',
                        'expression': estimate.expression,
                        'confidence': round(estimate.confidence, 4),
                        'valence': round(estimate.valence, 4),
                        'arousal': round(estimate.arousal, 4),
                        'probabilities': {
                            name: round(float(p), 4)
                            for name, p in zip(names, estimate.probabilities)
                        },
                    }
                )
            )
        if not estimates:
            print(f'ser_ros: {file}: no speech was heard', file=sys.stderr)
    return int(failed)
