"""Train a model on corpora and write a bundle."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ser_ros.commands.arguments import (
    compute,
    corpora,
    path_of,
    recipe_names,
    training_arguments,
)

if TYPE_CHECKING:
    from ser_ros.training.learning.fit import Compute


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `train`."""
    parser = commands.add_parser(
        'train',
        parents=[training_arguments(recipe_nargs='?')],
        help='train a model on corpora and write a bundle',
        description='Train by a recipe, or fine-tune a bundle (--from) on your own clips. The same '
        'command continues an interrupted run from its last completed epoch.',
        epilog=recipe_names(),
    )
    parser.add_argument(
        '--from',
        type=path_of,
        dest='source',
        metavar='BUNDLE',
        help='start from this bundle, a shipped one by its name. Without RECIPE it is fine-tuned '
        'in a few hundred steps by its own recipe; RECIPE must have its architecture and front-end',
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='a trial of settings, marked as such in card and report: no refit, every second '
        'validation clip, no evaluation on sounds without a voice (into runs/RECIPE_quick)',
    )
    parser.add_argument(
        '--out', type=path_of, help='folder of the run (default runs/RECIPE, or runs/finetune)'
    )
    parser.add_argument(
        '--devices', type=int, default=1, help='GPUs, or processes on the CPU, of each machine'
    )
    parser.add_argument(
        '--nodes',
        type=int,
        default=1,
        help='machines; run the command on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK set',
    )
    parser.set_defaults(run=run, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Train, and print the metrics of the validation set."""
    from ser_ros.training.finetuning import NAME
    from ser_ros.training.recipe import explicit_settings, load_recipe
    from ser_ros.training.reports.formatting import SUMMARY
    from ser_ros.training.reports.run_report import write_run_report
    from ser_ros.training.run import finetune, train

    if not (options.recipe or options.source):
        options.usage_error('name a RECIPE, or a bundle with --from')
    machines = compute(options, devices=options.devices, nodes=options.nodes)
    overrides = (_quick(machines) if options.quick else []) + options.set
    ending = '_quick' * options.quick
    if options.recipe:
        start = [f'pretrained={json.dumps(str(options.source))}'] if options.source else []
        recipe = load_recipe(options.recipe, [*overrides, *start])
        out = options.out or Path('runs', recipe.name + ending)
        explicit = explicit_settings(options.recipe, options.set)
        finished = train(recipe, corpora(options), out, machines, explicit)
    else:
        out = options.out or Path('runs', NAME + ending)
        finished = finetune(str(options.source), corpora(options), overrides, out, machines)
    if finished is None:  # only the first process reports
        return 0
    subsets = write_run_report(
        finished.bundle,
        finished.split.protocol,
        finished.history,
        {'validation': finished.validation},
        machines.device,
    )
    if 'validation' in subsets:
        metrics = subsets['validation']['metrics']
        print(f'protocol: {metrics["protocol"]}')
        for label, write in SUMMARY.items():
            print(f'validation, {label}: {write(metrics)}')
    print(f'bundle: {finished.bundle}')
    print(f'card: {finished.bundle.with_suffix(".md")}')
    print(f'report: {finished.bundle.with_name("report.html")}')
    return 0


def _quick(machines: 'Compute') -> list[str]:
    """The settings of a quick trial, which explicit ones override."""
    from ser_ros.training.learning.fit import is_slow_in_bf16

    settings = ['quick=true', 'refit=false']
    if is_slow_in_bf16(machines.device):
        settings.append('optimization.precision=32-true')
    return settings
