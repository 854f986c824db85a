"""Measure a bundle on speakers it was not trained on."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from ser_ros import SerError
from ser_ros.commands.arguments import device_argument


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `evaluate`."""
    parser = commands.add_parser(
        'evaluate',
        parents=[device_argument()],
        help='measure a bundle on speakers it was not trained on',
        description='Stream the clips of one part of RAVDESS through the recogniser.',
    )
    parser.add_argument('bundle', nargs='?', default='', help='default: the shipped one')
    parser.add_argument('--corpus', type=Path, required=True, help='folder that holds RAVDESS')
    parser.add_argument('--part', choices=('validation', 'test'), default='validation')
    parser.add_argument('--gain-db', type=float, default=0.0, help='make the clips this loud')
    parser.add_argument('--json', action='store_true', help='print all figures as JSON')
    parser.add_argument(
        '--record', action='store_true', help='store the figures in the bundle and write its card'
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the figures of one part; perhaps record them."""
    from ser_ros.bundle import load_bundle, save_bundle
    from ser_ros.recognizer import Recognizer
    from ser_ros.training.card import write_card
    from ser_ros.training.corpora import read_ravdess
    from ser_ros.training.evaluation import hear, measure

    if options.record and options.gain_db:
        raise SerError('--record is of the clips as they are: leave out --gain-db')
    bundle = load_bundle(options.bundle)
    if 'RAVDESS speech' not in bundle.info.corpora:
        raise SerError(f'bundle {bundle.path}: it names no RAVDESS speakers to evaluate on')
    speakers = bundle.info.corpora['RAVDESS speech'][options.part]
    clips = [clip for clip in read_ravdess(options.corpus) if clip.speaker in speakers]
    if not clips:
        raise SerError(f'{options.corpus} has no clips of speakers {", ".join(speakers)}')
    recognizer = Recognizer(bundle, options.device)
    figures = measure(hear(recognizer, clips, options.gain_db), bundle.info.class_names)
    if options.record:
        metrics = {**bundle.info.metrics, options.part: figures}
        bundle.info = dataclasses.replace(bundle.info, metrics=metrics)
        save_bundle(bundle.path, bundle.info, bundle.model)
        write_card(bundle)
    if options.json:
        print(json.dumps(figures))
    else:
        print_figures(options.part, figures)


def print_figures(part: str, figures: dict[str, Any]) -> None:
    """Print what `measure` returned."""
    print(f'RAVDESS {part}: {figures["clips"]} clips of speakers {" ".join(figures["speakers"])}')
    print('protocol: speaker-independent, each clip streamed as on the robot')
    print(f'unweighted accuracy  {figures["unweighted_accuracy"]:.1%}')
    print(f'accuracy             {figures["accuracy"]:.1%}')
    print(f'calibration error    {figures["calibration_error"]:.3f}')
    print(
        f'expressions given    {figures["coverage"]:.0%} of {figures["utterances"]} utterances, '
        f'{figures["expression_accuracy_when_given"]:.0%} of them right'
    )
    for name, recall in figures['recall'].items():
        print(f'  recall {name:<12} {recall:.0%}')
