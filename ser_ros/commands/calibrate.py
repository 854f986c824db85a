"""Set what a bundle's decisions depend on, from corpora that were left out."""

import argparse

from ser_ros.commands.arguments import path_of


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `calibrate`."""
    parser = commands.add_parser(
        'calibrate',
        help="set a bundle's temperature, threshold and neutral share by corpora left out",
        description='Set the temperature, the decision threshold and the expected share of neutral '
        'utterances of a bundle to those that were chosen on corpora left out of its recipe: for '
        'voices of its own corpora it is too sure. Metrics that it had before are removed.',
    )
    parser.add_argument('bundle', type=path_of, help='the bundle, which is changed')
    parser.add_argument(
        'results',
        type=path_of,
        metavar='LEFT_OUT.json',
        help='a result of cross-validate --leave-out-corpus with the same recipe',
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the calibrated bundle in place of the old one."""
    from ser_ros.bundle import load_bundle, save_bundle
    from ser_ros.training.left_out import calibrate_bundle
    from ser_ros.training.reports.left_out import read_summary

    bundle = calibrate_bundle(load_bundle(options.bundle), read_summary(options.results))
    save_bundle(bundle.path, bundle.info, bundle.frontend, bundle.model, bundle.programs)
    info = bundle.info
    print(
        f'{bundle.path}: temperature {info.temperature:.3f}, threshold {info.threshold:.3f}, '
        f'neutral share {info.adaptation.neutral_share:g}, rare ratio {info.adaptation.rare_ratio:g}'
    )
