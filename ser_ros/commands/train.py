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
        description='Train by a recipe. A run that was interrupted goes on from its last whole '
        'epoch when the same command is given again.',
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
        help='machines; give the command on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK set',
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, and print how well the bundle does on the validation part."""
    from ser_ros.training.learning.train import train
    from ser_ros.training.recipe import load_recipe
    from ser_ros.training.reports.html import SUMMARY
    from ser_ros.training.reports.run_report import write_run_report

    recipe = load_recipe(options.recipe, options.set)
    out = options.out or Path('runs', recipe.name)
    machines = compute(options, devices=options.devices, nodes=options.nodes)
    result = train(recipe, options.corpus, out, machines)
    if result is None:  # the first process tells of it
        return 0
    results = write_run_report(result, {'validation': result.validation}, machines)
    figures = results['parts']['validation']['figures']
    print(f'protocol: {figures["protocol"]}')
    for label, write in SUMMARY.items():
        print(f'validation, {label}: {write(figures)}')
    print(f'bundle: {result.bundle}')
    print(f'card: {result.bundle.with_suffix(".md")}')
    print(f'report: {result.bundle.with_name("report.html")}')
    return 0
