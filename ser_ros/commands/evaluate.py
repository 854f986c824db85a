"""Evaluate a bundle on speakers it was not trained on."""

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_ros import SerError
from ser_ros.commands.arguments import (
    corpora,
    corpus_argument,
    device_argument,
    open_workers,
    path_of,
    worker_device,
    workers_arguments,
)

if TYPE_CHECKING:
    from ser_ros.bundle import Bundle
    from ser_ros.training.evaluation.clip_result import ClipResult


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `evaluate`."""
    parser = commands.add_parser(
        'evaluate',
        parents=[device_argument(), corpus_argument(), workers_arguments('clips')],
        help='evaluate a bundle on speakers it was not trained on',
        description='Evaluate a bundle on one subset of the speakers of its own corpora; on all '
        'speakers of a corpus that it does not name, restricted to the classes that both have; '
        'and on sounds without a voice, for which it should be too uncertain to decide.',
    )
    parser.add_argument('bundle', nargs='?', default='', help='default: the shipped one')
    parser.add_argument(
        '--subset',
        choices=('validation', 'test', 'all'),
        help='speakers of the corpora that the bundle names (default: test if it names any of the '
        'corpora given, else validation)',
    )
    parser.add_argument(
        '--gain-db', type=_decibels, default=0.0, help='amplify the clips by these decibels'
    )
    parser.add_argument(
        '--conditions',
        type=path_of,
        metavar='NOISE',
        help='also evaluate the clips in noise, in a room, over the telephone, encoded, and louder '
        'and quieter, which takes twelve times as long; NOISE is a folder of recorded noise, of '
        'which every third recording is used: those that a training with this folder leaves out',
    )
    parser.add_argument('--json', action='store_true', help='print all metrics as JSON')
    parser.add_argument(
        '--report',
        type=path_of,
        metavar='FILE.html',
        help='write a report, and FILE.json beside it',
    )
    parser.add_argument(
        '--record', action='store_true', help='store the metrics in the bundle and write its card'
    )
    parser.add_argument(
        '--quote',
        action='append',
        default=[],
        metavar='BUNDLE',
        help='with --record: also store the metrics that this other bundle has on corpora it was '
        'not trained on; can be repeated',
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the metrics of each subset; record and report them if requested."""
    from ser_ros.bundle import load_bundle
    from ser_ros.journal import Journal, Resumed
    from ser_ros.stream.torch_backend import check_can_stream, select_device
    from ser_ros.training.data.corpora import read_corpora
    from ser_ros.training.evaluation.batches import (
        BatchPredictor,
        decode,
        encode,
        key,
        predict_with,
    )
    from ser_ros.training.evaluation.conditions import read_conditions
    from ser_ros.training.evaluation.selection import default_subset, evaluate, select
    from ser_ros.training.reports.card import record_metrics

    if options.record and (options.gain_db or options.subset == 'all'):
        raise SerError('--record cannot be used with --gain-db or --subset all: leave them out')
    if options.conditions and options.gain_db:
        raise SerError('--conditions cannot be used with --gain-db: leave one of them out')
    if options.quote and not options.record:
        raise SerError('--quote only changes the card: use it with --record')
    if options.report:
        _check_report(options.report)
    bundle = load_bundle(options.bundle)
    conditions = None
    if options.conditions:
        check_can_stream(bundle)
        conditions = read_conditions(options.conditions)
    quoted = _quote(options.quote)
    labels = bundle.info.recipe.get('data', {}).get('labels', {})
    loaded = read_corpora(corpora(options), labels)
    subset = options.subset or default_subset(bundle.info, loaded)
    selections = select(bundle.info, loaded, subset)
    for selection in selections:
        notes = selection.notes
        if selection.missing:
            notes = [*notes, f'{selection.name}: no clips of {", ".join(selection.missing)}']
            if options.record:
                raise SerError(f'{notes[-1]}; --record needs the whole subset: name all corpora')
        for note in notes:
            print(f'ser_ros: {note}', file=sys.stderr)
    predictor = BatchPredictor(
        options.bundle,
        bundle.digest,
        str(select_device(worker_device(options))),
        options.gain_db,
        conditions.degrades if conditions else {},
    )
    with contextlib.ExitStack() as stack:
        journal = None
        if options.resume:
            journal = stack.enter_context(Journal(options.resume, predictor.settings()))
        work = predictor.work(bundle)
        workers = stack.enter_context(open_workers(options, predictor, work))
        if journal:
            options.interrupted = '; the same command continues with the clips that are left'
            workers = Resumed(workers, journal, key, encode, decode)
        subsets, results = evaluate(
            bundle,
            selections,
            predictor.device,
            options.gain_db,
            conditions,
            predict_with(workers),
        )
    metrics = {name: subset['metrics'] for name, subset in subsets.items()}
    if options.record:
        record_metrics(bundle, {**metrics, **quoted})
    if options.report:
        _report(bundle, subsets, results, options.report)
    if options.json:
        print(json.dumps(metrics))
        return
    for name, values in metrics.items():
        _print_metrics(name, values)


def _decibels(text: str) -> float:
    if not -200 <= (value := float(text)) <= 200:
        raise argparse.ArgumentTypeError(f'{text} is not from -200 to 200')
    return value


def _check_report(path: Path) -> None:
    if path.suffix not in ('.html', '.htm'):
        raise SerError(f'--report {path}: the report is an HTML page, name it .html')
    if path.is_dir():
        raise SerError(f'--report {path}: this is a folder, name a file')
    if not path.absolute().parent.is_dir():
        raise SerError(f'--report {path}: the folder does not exist')


def _quote(names: Sequence[str]) -> dict[str, Any]:
    """The metrics that other bundles have on corpora of which they name no speaker."""
    from ser_ros.bundle import load_bundle
    from ser_ros.training.reports.card import foreign_metrics

    quoted = {}
    for name in names:
        info = load_bundle(name).info
        foreign = foreign_metrics(info)
        if not foreign:
            raise SerError(
                f'--quote {name}: it has no metrics of other corpora; evaluate it on one with '
                '--record first'
            )
        model = f'a model of {" and ".join(info.corpora)} alone'
        quoted |= {f'{subset}, {model}': values for subset, values in foreign.items()}
    return quoted


def _report(
    bundle: 'Bundle', subsets: dict[str, Any], clip_results: list['ClipResult'], path: Path
) -> None:
    from ser_ros.models import count_parameters
    from ser_ros.training.reports.html import write_report, write_results

    info = bundle.info
    results = {
        'title': f'{bundle.path.stem}: {", ".join(subsets)}',
        'facts': {
            'bundle': str(bundle.path),
            'architecture': info.architecture,
            'parameters': count_parameters(bundle.model),
            'classes': list(info.class_names),
            'seed': info.seed,
            'speakers': info.corpora,
            'recipe': info.recipe,
        },
        'subsets': subsets,
        'history': [],
    }
    write_results(path.with_suffix('.json'), results)
    write_report(path, results, clip_results)


def _print_metrics(name: str, metrics: dict[str, Any]) -> None:
    from ser_ros.training.reports.formatting import (
        CONDITIONS_HEADER,
        NONSPEECH_HEADER,
        SUMMARY,
        condition_rows,
        nonspeech_rows,
        percent,
        text_table,
    )

    rows = {label: write(metrics) for label, write in SUMMARY.items()}
    if (accuracy := metrics.get('unrestricted_accuracy')) is not None:
        rows['unweighted accuracy, all classes'] = percent(accuracy)
    for class_name, values in metrics['classes'].items():
        rows[f'recall of {class_name}'] = percent(values['recall'])
    print(name)
    print(f'  protocol: {metrics["protocol"]}')
    for label, text in rows.items():
        print(f'  {label:<34} {text}')
    print(f'  sounds without a voice: {metrics["nonspeech"]["protocol"]}')
    for sound, *cells in nonspeech_rows(metrics):
        labelled = zip(NONSPEECH_HEADER[1:], cells)
        print(f'  {sound:<34} ' + ', '.join(f'{label} {cell}' for label, cell in labelled))
    if rows := condition_rows(metrics):
        print(f'  under conditions: {metrics["conditions"]["protocol"]}')
        for line in text_table(CONDITIONS_HEADER, rows):
            print(f'  {line}')
