"""Train a model on corpora and write a bundle."""

import argparse
from pathlib import Path

from ser_ros.commands.arguments import compute, recipe_names, training_arguments


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `train`."""
    parser = commands.add_parser(
        'train',
        parents=[training_arguments()],
        help='train a model on corpora and write a bundle',
        description='Train by a recipe. The same command continues an interrupted run from its '
        'last completed epoch.',
        epilog=recipe_names(),
    )
    parser.add_argument('--out', type=Path, help='folder of the run (default runs/RECIPE)')
    parser.add_argument(
        '--devices', type=int, default=1, help='GPUs, or processes on the CPU, of each machine'
    )
    parser.add_argument(
        '--nodes',
        type=int,
        default=1,
        help='machines; run the command on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK set',
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, and print the metrics of the validation set."""
    from ser_ros.training.recipe import load_recipe
    from ser_ros.training.reports.formatting import SUMMARY
    from ser_ros.training.reports.run_report import write_run_report
    from ser_ros.training.run import train

    recipe = load_recipe(options.recipe, options.set)
    out = options.out or Path('runs', recipe.name)
    machines = compute(options, devices=options.devices, nodes=options.nodes)
    finished = train(recipe, options.corpus, out, machines)
    if finished is None:  # only the first process reports
        return 0
    subsets = write_run_report(
        finished.bundle,
        finished.split.protocol,
        finished.history,
        {'validation': finished.validation},
        machines.device,
    )
    metrics = subsets['validation']['metrics']
    print(f'protocol: {metrics["protocol"]}')
    for label, write in SUMMARY.items():
        print(f'validation, {label}: {write(metrics)}')
    print(f'bundle: {finished.bundle}')
    print(f'card: {finished.bundle.with_suffix(".md")}')
    print(f'report: {finished.bundle.with_name("report.html")}')
    return 0
