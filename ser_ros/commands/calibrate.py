"""Set what a bundle's decisions depend on, from corpora that it was not trained on."""

import argparse

from ser_ros import SerError
from ser_ros.commands.arguments import (
    cache_argument,
    cache_folder,
    corpora,
    corpus_argument,
    device_argument,
    path_of,
)


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `calibrate`."""
    parser = commands.add_parser(
        'calibrate',
        parents=[device_argument(), corpus_argument(is_required=False), cache_argument()],
        help="set a bundle's temperature, threshold and neutral share by voices that are new to it",
        description='Set the temperature, the decision threshold and the expected share of neutral '
        'utterances of a bundle that adapts to voices: for voices of its own corpora it is too '
        'sure. Either to those that were chosen on corpora left out of its recipe, or to those that '
        'suit corpora which it was not trained on (--corpus); then a table shows the metrics of '
        'each with the choices of the others. Metrics that the bundle had before are removed.',
    )
    parser.add_argument('bundle', type=path_of, help='the bundle, which is changed')
    parser.add_argument(
        'left_out',
        type=path_of,
        nargs='?',
        metavar='LEFT_OUT.json',
        help='a result of cross-validate --leave-out-corpus with the same recipe',
    )
    parser.add_argument(
        '--results',
        type=path_of,
        metavar='DIR',
        help='with --corpus: write the metrics to a small JSON file in a folder named like the '
        'recipe, in this one',
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the calibrated bundle in place of the old one."""
    if bool(options.left_out) == bool(options.corpus):
        raise SerError(
            'name either LEFT_OUT.json or corpora that are new to the bundle (--corpus)'
        )
    if options.results and len(options.corpus) < 2:
        raise SerError(
            '--results needs two corpora or more: choices for one are made on the others'
        )
    from ser_ros.bundle import load_bundle, save_bundle
    from ser_ros.settings import from_dict
    from ser_ros.training.cross_validation import results_folder
    from ser_ros.training.learning.fit import Compute
    from ser_ros.training.left_out import calibrate_bundle, calibrate_on_strangers
    from ser_ros.training.recipe import Recipe
    from ser_ros.training.reports.card import write_card
    from ser_ros.training.reports.formatting import text_table
    from ser_ros.training.reports.left_out import HEADER, read_summary, rows, write_summary
    from ser_ros.training.run import load_corpora

    bundle = load_bundle(options.bundle)
    if options.left_out:
        bundle = calibrate_bundle(bundle, read_summary(options.left_out))
    else:
        loaded = load_corpora(corpora(options), bundle.info.recipe.get('data', {}).get('labels'))
        compute = Compute(device=options.device, cache=cache_folder(options))
        bundle, summary = calibrate_on_strangers(bundle, loaded, compute)
        if summary.results:
            print('\n'.join(text_table(HEADER, rows([summary.results]))))
            if options.results:
                folder = results_folder(options.results, from_dict(Recipe, summary.recipe))
                write_summary(folder / f'left_out_seed{summary.seed}.json', summary)
    write_card(bundle)  # first: it may refuse
    save_bundle(bundle.path, bundle.info, bundle.frontend, bundle.model, bundle.programs)
    info = bundle.info
    print(
        f'{bundle.path}: temperature {info.temperature:.3f}, threshold {info.threshold:.3f}, '
        f'neutral share {info.adaptation.neutral_share:g}, rare ratio {info.adaptation.rare_ratio:g}'
    )
