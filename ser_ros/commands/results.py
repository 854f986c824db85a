"""Write the page of results from the stored results of cross-validation."""

import argparse
from pathlib import Path

from ser_ros.commands.arguments import path_of


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `results`."""
    parser = commands.add_parser(
        'results',
        help='write the page of results of all recipes',
        description='Write docs/RESULTS.md from the JSON files that cross-validate --results '
        'stores for each fold, and from the metadata of the shipped bundles.',
    )
    parser.add_argument(
        'folder',
        nargs='?',
        type=path_of,
        default=Path('docs', 'results'),
        help='default docs/results',
    )
    parser.add_argument('--out', type=path_of, help='default: RESULTS.md beside the folder')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the page."""
    from ser_ros.bundle import load_bundle
    from ser_ros.files import write_atomically
    from ser_ros.shipped import shipped_bundles
    from ser_ros.training.reports.results_page import render

    out = options.out or options.folder.parent / 'RESULTS.md'
    write_atomically(out, render(options.folder, [*map(load_bundle, shipped_bundles())]))
    print(f'results: {out}')
