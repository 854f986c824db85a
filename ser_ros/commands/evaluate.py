"""Measure a bundle on speakers it was not trained on."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_ros import SerError
from ser_ros.commands.arguments import corpus_argument, device_argument

if TYPE_CHECKING:
    from ser_ros.bundle import Bundle


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `evaluate`."""
    parser = commands.add_parser(
        'evaluate',
        parents=[device_argument(), corpus_argument()],
        help='measure a bundle on speakers it was not trained on',
        description='Let a bundle hear the speakers that it names for one part of its corpora; of '
        'a corpus that it does not name, all speakers, on the classes that both have; and sounds '
        'without a voice, of which it should be too uncertain to name an emotion.',
    )
    parser.add_argument('bundle', nargs='?', default='', help='default: the shipped one')
    parser.add_argument(
        '--part',
        choices=('validation', 'test', 'all'),
        default='validation',
        help='of the corpora that the bundle names (default validation)',
    )
    parser.add_argument(
        '--gain-db', type=_decibels, default=0.0, help='make the clips louder by this'
    )
    parser.add_argument('--json', action='store_true', help='print all figures as JSON')
    parser.add_argument(
        '--report', type=Path, metavar='FILE.html', help='write a report, and FILE.json beside it'
    )
    parser.add_argument(
        '--record', action='store_true', help='store the figures in the bundle and write its card'
    )
    parser.add_argument(
        '--quote',
        action='append',
        default=[],
        metavar='BUNDLE',
        help='with --record: tell what this other bundle recorded on corpora it was not trained '
        'on, too; may be given several times',
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the figures of each part; perhaps record and report them."""
    from ser_ros.bundle import load_bundle
    from ser_ros.training.data.corpora import read_corpora
    from ser_ros.training.evaluation.selection import evaluate, select

    if options.record and (options.gain_db or options.part == 'all'):
        raise SerError('--record is of one part as it is: leave out --gain-db and --part all')
    if options.quote and not options.record:
        raise SerError('--quote is for the card: give --record, too')
    if options.report:
        _check_report(options.report)
    bundle = load_bundle(options.bundle)
    quoted = _quote(options.quote)
    selections = select(bundle.info, read_corpora(options.corpus), options.part)
    for selection in selections:
        notes = selection.notes
        if selection.missing:
            notes = [*notes, f'{selection.name}: no clips of {", ".join(selection.missing)}']
            if options.record:
                raise SerError(f'{notes[-1]}; --record is of the whole part: give all its corpora')
        for note in notes:
            print(f'ser_ros: {note}', file=sys.stderr)
    parts, heard = evaluate(bundle, selections, options.device, options.gain_db)
    figures = {name: part['figures'] for name, part in parts.items()}
    if options.record:
        _record(bundle, {**figures, **quoted})
    if options.report:
        _report(bundle, parts, heard, options.report)
    if options.json:
        print(json.dumps(figures))
        return
    for name, values in figures.items():
        _print_figures(name, values)


def _decibels(text: str) -> float:
    if not -200 <= (value := float(text)) <= 200:
        raise argparse.ArgumentTypeError(f'{text} is not from -200 to 200')
    return value


def _check_report(path: Path) -> None:
    if path.suffix not in ('.html', '.htm'):
        raise SerError(f'--report {path}: a report is a page, name it .html')
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise SerError(f'--report {path}: there is no such folder, or it is one itself')


def _quote(names: Sequence[str]) -> dict[str, Any]:
    """What other bundles recorded on corpora of which they name no speaker."""
    from ser_ros.bundle import load_bundle
    from ser_ros.training.reports.card import foreign_metrics

    quoted = {}
    for name in names:
        info = load_bundle(name).info
        foreign = foreign_metrics(info)
        if not foreign:
            raise SerError(
                f'--quote {name}: it recorded nothing of other corpora; evaluate it on one, with '
                '--record, first'
            )
        learnt = f'a model of {" and ".join(info.corpora)} alone'
        quoted |= {f'{part}, {learnt}': values for part, values in foreign.items()}
    return quoted


def _record(bundle: 'Bundle', figures: dict[str, Any]) -> None:
    from ser_ros.bundle import save_bundle
    from ser_ros.training.reports.card import write_card

    metrics = {**bundle.info.metrics, **figures}
    bundle.info = dataclasses.replace(bundle.info, metrics=metrics)
    save_bundle(bundle.path, bundle.info, bundle.frontend, bundle.model)
    write_card(bundle)


def _report(bundle: 'Bundle', parts: dict[str, Any], heard: list, path: Path) -> None:
    from ser_ros.models import count_parameters
    from ser_ros.training.reports.html import write_report, write_results

    info = bundle.info
    results = {
        'title': f'{bundle.path.stem}: {", ".join(parts)}',
        'facts': {
            'bundle': str(bundle.path),
            'architecture': info.architecture,
            'parameters': count_parameters(bundle.model),
            'classes': list(info.class_names),
            'seed': info.seed,
            'speakers': info.corpora,
            'recipe': info.recipe,
        },
        'parts': parts,
        'history': [],
    }
    write_results(path.with_suffix('.json'), results)
    write_report(path, results, heard)


def _print_figures(name: str, figures: dict[str, Any]) -> None:
    from ser_ros.training.reports.html import NONSPEECH_HEADER, SUMMARY, nonspeech_rows, percent

    print(name)
    print(f'  protocol: {figures["protocol"]}')
    for label, write in SUMMARY.items():
        print(f'  {label:<32} {write(figures)}')
    if (accuracy := figures.get('unrestricted_accuracy')) is not None:
        print(f'  {"unweighted accuracy, all classes":<32} {percent(accuracy)}')
    for class_name, values in figures['classes'].items():
        print(f'  {"recall of " + class_name:<32} {percent(values["recall"])}')
    print(f'  sounds without a voice: {figures["nonspeech"]["protocol"]}')
    for name, *cells in nonspeech_rows(figures):
        said = zip(NONSPEECH_HEADER[1:], cells)
        print(f'  {name:<32} ' + ', '.join(f'{label} {cell}' for label, cell in said))
