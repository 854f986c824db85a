"""Print and plot the contents of a corpus."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ser_ros.commands.arguments import path_of, reading, sound_arguments
from ser_ros.training.data.naming import NAMINGS


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `corpus`."""
    parser = commands.add_parser(
        'corpus',
        parents=[sound_arguments()],
        help='print and plot the contents of a corpus of labelled speech',
        description='Read a corpus as training does: its clips by emotion, gender, intensity and '
        'speaker, their lengths, and every file that is not used, with the reason. The exit status '
        'is 1 if labels have no class.',
    )
    parser.add_argument('path', type=path_of, metavar='PATH', help='its folder, or a CSV file')
    parser.add_argument(
        '--kind',
        default='auto',
        help=f'needed if the file names do not identify it: {", ".join(NAMINGS)}, csv (columns path, '
        'emotion, speaker) or folders (EMOTION/SPEAKER_*.wav or SPEAKER/EMOTION/*.wav)',
    )
    parser.add_argument(
        '--labels',
        type=_mapping,
        default={},
        metavar='MAP',
        help="classes of its labels, as the recipe's key data.labels: '{bored: bored, cough: null}'",
    )
    parser.add_argument(
        '--plot',
        type=path_of,
        metavar='FILE',
        help='the plot (default corpus_NAME.png here; NAME_2 if that shows another corpus)',
    )
    parser.add_argument(
        '--json', action='store_true', help='print JSON; write a plot only with --plot'
    )
    parser.set_defaults(run=run)


def _mapping(text: str) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        values = None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise argparse.ArgumentTypeError(f'{text!r} is not a mapping such as {{bored: bored}}')
    return values


def run(options: argparse.Namespace) -> int:
    """Print the contents, and plot them; return 1 if labels have no class."""
    from ser_ros.training.data.corpora import read_corpus
    from ser_ros.training.reports.corpus_report import corpus_figure, describe
    from ser_ros.training.reports.plots import check_kind, own_path, save

    if options.plot:
        check_kind(options.plot)
    corpus = read_corpus(options.path, options.kind, reading(options), options.labels)
    contents = describe(corpus)
    if options.json:
        print(json.dumps(contents))
    else:
        _print_contents(contents)
    plot = options.plot
    if plot is None and not options.json:
        plot = own_path(Path(f'corpus_{corpus.name}.png'), options.path)
    if plot is not None:
        save(corpus_figure(corpus), plot, options.path if options.plot is None else None)
    if not options.json:
        print(f'plot: {plot}')
    for line in corpus.unknown_labels:
        print(f'ser_ros: {corpus.name}: {line}', file=sys.stderr)
    return 1 if corpus.unknown_labels else 0


def _print_contents(contents: dict[str, Any]) -> None:
    seconds, speakers = contents['seconds'], contents['speakers']
    print(f'{contents["name"]}: {contents["clips"]} clips of {len(speakers)} speakers')
    print(
        f'lengths: {seconds["shortest"]:.2f} to {seconds["longest"]:.2f} s, median '
        f'{seconds["median"]:.2f} s, in all {seconds["total"] / 60:.1f} minutes'
    )
    print()
    _print_table(contents)
    print()
    print('speakers: ' + ', '.join(f'{name} {count}' for name, count in speakers.items()))
    for emotion, labels in contents['collisions'].items():
        print(f'labels of one class, {emotion}: {", ".join(labels)}')
    if not contents['problems']:
        print('problems: none')
    for reason, problem in contents['problems'].items():
        status = 'used' if problem['is_used'] else 'not used'
        print(f'problem: {len(problem["files"])} × {reason}, {status}:')
        for path, detail in problem['files'].items():
            print(f'  {path}' + (f' ({detail})' if detail else ''))


def _print_table(contents: dict[str, Any]) -> None:
    """One row for each emotion: clips, by gender, by intensity."""
    rows = {
        emotion: {
            'clips': count,
            **{f'gender {key}': n for key, n in contents['genders'][emotion].items()},
            **{f'intensity {key}': n for key, n in contents['intensities'][emotion].items()},
        }
        for emotion, count in contents['emotions'].items()
    }
    titles = list(next(iter(rows.values())))
    print('  '.join([f'{"emotion":<10}', *titles]))
    rows['all'] = {title: sum(row[title] for row in rows.values()) for title in titles}
    for emotion, row in rows.items():
        print('  '.join([f'{emotion:<10}', *(f'{row[title]:>{len(title)}}' for title in titles)]))
