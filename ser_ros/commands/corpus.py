"""Print and draw what a corpus holds."""

import argparse
import json
from pathlib import Path
from typing import Any

from ser_ros.commands.arguments import path_of


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `corpus`."""
    parser = commands.add_parser(
        'corpus',
        help='print and draw what a corpus of labelled speech holds',
        description='Read a corpus as training does: its clips by emotion, gender, intensity and '
        'speaker, their lengths, and every file that is not used, with the reason.',
    )
    parser.add_argument('path', type=path_of, metavar='PATH', help='its folder, or a CSV file')
    parser.add_argument(
        '--kind',
        default='auto',
        help='where the file names do not tell it: RAVDESS, SAVEE, CREMA-D, TESS, EmoDB, '
        'BanglaSER, csv (columns path, emotion, speaker) or folders (EMOTION/SPEAKER_*.wav)',
    )
    parser.add_argument(
        '--plot', type=Path, metavar='FILE', help='the picture (default corpus_NAME.png here)'
    )
    parser.add_argument(
        '--json', action='store_true', help='print JSON; draw only what --plot names'
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the figures, and draw them."""
    from ser_ros.training.data.corpora import read_corpus
    from ser_ros.training.reports.corpus_report import corpus_figure, describe
    from ser_ros.training.reports.plots import check_kind, save

    if options.plot:
        check_kind(options.plot)
    corpus = read_corpus(options.path, options.kind)
    figures = describe(corpus)
    if options.json:
        print(json.dumps(figures))
    else:
        _print_figures(figures)
    picture = options.plot
    if picture is None and not options.json:
        picture = Path(f'corpus_{corpus.name}.png')
    if picture is not None:
        save(corpus_figure(corpus), picture)
    if not options.json:
        print(f'picture: {picture}')


def _print_figures(figures: dict[str, Any]) -> None:
    seconds, speakers = figures['seconds'], figures['speakers']
    print(f'{figures["name"]}: {figures["clips"]} clips of {len(speakers)} speakers')
    print(
        f'lengths: {seconds["shortest"]:.2f} to {seconds["longest"]:.2f} s, median '
        f'{seconds["median"]:.2f} s, in all {seconds["total"] / 60:.1f} minutes'
    )
    print()
    _print_table(figures)
    print()
    print('speakers: ' + ', '.join(f'{name} {count}' for name, count in speakers.items()))
    for emotion, labels in figures['collisions'].items():
        print(f'counted as one class, {emotion}: {", ".join(labels)}')
    if not figures['problems']:
        print('problems: none')
    for reason, problem in figures['problems'].items():
        verdict = 'used' if problem['is_used'] else 'not used'
        print(f'problem: {len(problem["files"])} × {reason}, {verdict}:')
        for path, detail in problem['files'].items():
            print(f'  {path}' + (f' ({detail})' if detail else ''))


def _print_table(figures: dict[str, Any]) -> None:
    """One row an emotion: clips, by gender, by intensity."""
    rows = {
        emotion: {
            'clips': count,
            **{f'gender {key}': n for key, n in figures['genders'][emotion].items()},
            **{f'intensity {key}': n for key, n in figures['intensities'][emotion].items()},
        }
        for emotion, count in figures['emotions'].items()
    }
    titles = list(next(iter(rows.values())))
    print('  '.join([f'{"emotion":<10}', *titles]))
    rows['all'] = {title: sum(row[title] for row in rows.values()) for title in titles}
    for emotion, row in rows.items():
        print('  '.join([f'{emotion:<10}', *(f'{row[title]:>{len(title)}}' for title in titles)]))
