"""Train and test on all folds of a split, with one seed or several."""

import argparse
import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from ser_ros import SerError
from ser_ros.commands.arguments import (
    compute,
    corpora,
    path_of,
    recipe_names,
    training_arguments,
)

if TYPE_CHECKING:
    from ser_ros.training.attempts import Attempts
    from ser_ros.training.learning.fit import Compute
    from ser_ros.training.recipe import Recipe


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `cross-validate`."""
    parser = commands.add_parser(
        'cross-validate',
        parents=[training_arguments()],
        help='train and test on all folds, with one seed or several',
        description='Train for each fold, then evaluate on its test set. Finished folds are not '
        'repeated, interrupted ones continue, and the same command in another terminal, or on '
        'another GPU, takes over some of the folds that are left.',
        epilog=recipe_names(),
    )
    parser.add_argument(
        '--leave-out-corpus',
        nargs='+',
        default=[],
        metavar='NAME',
        help='instead of folds: leave out each of these corpora in turn (three or more), as '
        'strangers; choices for one are made on others',
    )
    parser.add_argument(
        '--neighbours',
        type=int,
        metavar='N',
        help='with --leave-out-corpus: make the choices for a corpus on those N before and N after '
        'it in this list, a circle, alone; of five corpora 1 saves a third of the trainings '
        '(default: on all others)',
    )
    parser.add_argument('--folds', type=_numbers, default=(), help='1-6 or 1,3 (default all)')
    parser.add_argument(
        '--seeds', type=_numbers, help="1-3 or 1,5 (default: the recipe's, which is 1)"
    )
    parser.add_argument('--out', type=path_of, required=True, help='folder of the runs')
    parser.add_argument(
        '--results',
        type=path_of,
        metavar='DIR',
        help='write a small JSON file for each fold to a folder named like the recipe, in this '
        'one (default: beside the runs)',
    )
    parser.set_defaults(run=run)


def _numbers(text: str) -> tuple[int, ...]:
    """`1-3,5` → (1, 2, 3, 5)."""
    numbers = []
    for piece in text.split(','):
        match = re.fullmatch(r'(\d{1,6})(?:-(\d{1,6}))?', piece.strip())
        if match is None:
            raise argparse.ArgumentTypeError(f'{text!r} is not a list such as 1-3,5')
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < first + 1000:
            raise argparse.ArgumentTypeError(f'{piece} is not a range such as 1-3')
        numbers += range(first, last + 1)
    return tuple(dict.fromkeys(numbers))


def run(options: argparse.Namespace) -> int:
    """Run the folds that are not finished; print the table of the finished ones."""
    from ser_ros.training.cross_validation import cross_validate
    from ser_ros.training.recipe import explicit_settings, load_recipe
    from ser_ros.training.reports.results import fold_table

    if any(override.partition('=')[0] == 'split.fold' for override in options.set):
        raise SerError('--set split.fold: choose the folds with --folds instead')
    recipe = load_recipe(options.recipe, options.set)
    explicit = explicit_settings(options.recipe, options.set)
    machine = compute(options)
    if options.leave_out_corpus:
        if options.folds:
            raise SerError('--folds cannot be used with --leave-out-corpus: leave one of them out')
        return _leave_out(options, recipe, explicit, machine)
    if options.neighbours is not None:
        raise SerError('--neighbours needs --leave-out-corpus')
    outcome = cross_validate(
        recipe,
        corpora(options),
        options.out,
        options.folds,
        options.seeds,
        options.results,
        machine,
        explicit,
    )
    if outcome.summary:
        print(f'{recipe.name}: {outcome.summary.pooled["metrics"]["protocol"]}')
        print('\n'.join(fold_table(outcome.summary)))
        print(f'table: {options.out / "table.md"}')
        print(f'report: {options.out / "report.html"}')
        print(f'results: {outcome.results}')
    _report_unfinished(outcome.attempts)
    return 0


def _leave_out(
    options: argparse.Namespace, recipe: 'Recipe', explicit: Collection[str], machine: 'Compute'
) -> int:
    from ser_ros.training.cross_validation import results_folder
    from ser_ros.training.left_out import leave_out_corpora
    from ser_ros.training.reports.formatting import text_table
    from ser_ros.training.reports.left_out import CURVE_HEADER, HEADER, curve_rows, rows

    names = options.leave_out_corpus
    results = results_folder(options.results, recipe) if options.results else options.out
    outcome = leave_out_corpora(
        recipe,
        corpora(options),
        names,
        options.out,
        options.seeds,
        results,
        machine,
        explicit,
        options.neighbours,
    )
    if outcome.summaries:
        print('\n'.join(text_table(HEADER, rows([s.results for s in outcome.summaries]))))
        print('\n'.join(text_table(CURVE_HEADER, curve_rows(outcome.summaries))))
        print(f'results: {results}')
    _report_unfinished(outcome.attempts)
    return 0


def _report_unfinished(attempts: 'Attempts') -> None:
    """Print what is not finished; SerError if a run failed."""
    for name in attempts.elsewhere:
        print(f'{name}: skipped, another process works on it')
    attempts.print_failures()
    if attempts.failures:
        raise SerError(
            f'{len(attempts.failures)} of the runs failed; the same command repeats them'
        )
