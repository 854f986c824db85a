"""What a few clips of one's own are worth: a bundle fine-tuned on more and more of them."""

import argparse

from ser_ros import SerError
from ser_ros.commands.arguments import compute, corpora, corpus_argument, device_argument, path_of


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `learning-curve`."""
    parser = commands.add_parser(
        'learning-curve',
        parents=[device_argument(), corpus_argument()],
        help="how many clips of one's own a fine-tuning needs",
        description='Fine-tune a bundle on a few clips of each class of a corpus that it does not '
        'know, train as many steps from scratch, and compare both with the bundle as it is, on the '
        'other speakers of the corpus: of unknown voices, and of voices that are known from ten '
        'utterances. The same command continues an interrupted run.',
    )
    parser.add_argument('bundle', help='a bundle that adapts to voices')
    parser.add_argument(
        '--clips',
        type=int,
        nargs='+',
        default=[5, 20, 80],
        metavar='N',
        help='clips of each class to train on (default 5 20 80)',
    )
    parser.add_argument('--speakers', type=int, default=5, help='speakers to train on (default 5)')
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=[1, 2, 3], metavar='SEED', help='default 1 2 3'
    )
    parser.add_argument('--out', type=path_of, required=True, help='folder of the runs')
    parser.add_argument(
        '--results', type=path_of, metavar='DIR', help='write the result to a folder in this one'
    )
    parser.set_defaults(
        run=run,
        workers=0,
        cache=None,
        no_cache=False,
        interrupted='; the same command continues with the run that was interrupted',
    )


def run(options: argparse.Namespace) -> None:
    """Train, print the table, and write the result if requested."""
    from ser_ros.training.learning_curve import compute_learning_curve
    from ser_ros.training.reports.formatting import text_table
    from ser_ros.training.reports.learning_curve import FOLDER, HEADER, curve_table, write_curve

    if min(options.clips) < 1 or options.speakers < 1:
        raise SerError('--clips and --speakers are numbers from 1')
    paths = corpora(options)
    if len(paths) > 1:
        raise SerError(f'--corpus names {len(paths)} corpora: a learning curve is of one')
    curve = compute_learning_curve(
        options.bundle,
        paths[0],
        sorted(set(options.clips)),
        options.speakers,
        options.seeds,
        options.out,
        compute(options),
    )
    print('\n'.join(text_table(HEADER, curve_table(curve))))
    if options.results:
        path = options.results / FOLDER / f'{curve.bundle}_{curve.corpus}.json'
        write_curve(path, curve)
        print(f'result: {path}')
