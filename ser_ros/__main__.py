"""The command line: python -m ser_ros COMMAND."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from ser_ros import SerError, __version__


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run one command; return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except SerError as error:
        print(f'ser_ros: {error}', file=sys.stderr)
    except ModuleNotFoundError as error:
        print(f"ser_ros: {error}; install it with: pip install '.[train]'", file=sys.stderr)
    except KeyboardInterrupt:
        print('ser_ros: interrupted', file=sys.stderr)
        return 130
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m ser_ros', description=__doc__)
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    device = argparse.ArgumentParser(add_help=False)
    device.add_argument(
        '--device', default='auto', help='auto, cpu, cuda or cuda:N (default auto)'
    )

    train = commands.add_parser(
        'train',
        parents=[device],
        help='train a model on RAVDESS and write a bundle',
        description='Train on RAVDESS. A run that was interrupted goes on where it stopped.',
    )
    train.add_argument('recipe', help='a recipe file, or the name of a shipped one')
    train.add_argument('--corpus', type=Path, required=True, help='folder that holds RAVDESS')
    train.add_argument('--out', type=Path, help='folder of the run (default runs/RECIPE)')
    train.set_defaults(run=_train)

    evaluate = commands.add_parser(
        'evaluate',
        parents=[device],
        help='measure a bundle on speakers it was not trained on',
        description='Stream the clips of one part of RAVDESS through the recogniser.',
    )
    evaluate.add_argument('bundle', nargs='?', default='', help='default: the shipped one')
    evaluate.add_argument('--corpus', type=Path, required=True, help='folder that holds RAVDESS')
    evaluate.add_argument('--part', choices=('validation', 'test'), default='validation')
    evaluate.add_argument('--gain-db', type=float, default=0.0, help='make the clips this loud')
    evaluate.add_argument('--json', action='store_true', help='print all figures as JSON')
    evaluate.add_argument(
        '--record', action='store_true', help='store the figures in the bundle and write its card'
    )
    evaluate.set_defaults(run=_evaluate)

    predict = commands.add_parser(
        'predict',
        parents=[device],
        help='print the emotions heard in sound files',
        description='One JSON line for each estimate of each file, times in seconds.',
    )
    predict.add_argument('files', nargs='+', metavar='FILE', help='WAV, FLAC, ...')
    predict.add_argument('--bundle', default='', help='default: the shipped one')
    predict.set_defaults(run=_predict)

    devices = commands.add_parser('devices', help='list microphones and compute devices')
    devices.set_defaults(run=_devices)
    return parser


def _train(options: argparse.Namespace) -> None:
    from ser_ros.bundle import load_bundle
    from ser_ros.paths import share_path
    from ser_ros.training.card import write_card
    from ser_ros.training.recipe import load_recipe
    from ser_ros.training.train import train

    path = Path(options.recipe)
    if path.suffix != '.yaml':
        path = share_path(f'config/recipes/{options.recipe}.yaml')
    recipe = load_recipe(path)
    out = options.out or Path('runs', recipe.name)
    bundle = load_bundle(train(recipe, options.corpus, out, options.device))
    write_card(bundle)
    _print_figures('validation', bundle.info.metrics['validation'])
    print(f'bundle: {bundle.path}')


def _evaluate(options: argparse.Namespace) -> None:
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
        _print_figures(options.part, figures)


def _print_figures(part: str, figures: dict[str, Any]) -> None:
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


def _predict(options: argparse.Namespace) -> int:
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


def _devices(options: argparse.Namespace) -> None:
    import torch

    from ser_ros.audio.sources import SourceError, input_devices

    print('compute')
    print(f'  cpu     {torch.get_num_threads()} threads')
    for index in range(torch.cuda.device_count()):
        print(f'  cuda:{index}  {torch.cuda.get_device_name(index)}')
    print('microphones')
    try:
        devices = input_devices()
    except SourceError as error:
        print(f'  {error}')
        return
    for index, device in devices:
        print(
            f'  {index:>3}  {device["name"]}: up to {device["max_input_channels"]} channels, '
            f'{device["default_samplerate"]:g} Hz'
        )
    if not devices:
        print('  none')


if __name__ == '__main__':
    sys.exit(main())
