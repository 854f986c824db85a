"""Train a model on a corpus and write a bundle."""

import argparse
from pathlib import Path

from ser_ros.commands.arguments import device_argument
from ser_ros.commands.evaluate import print_figures


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `train`."""
    parser = commands.add_parser(
        'train',
        parents=[device_argument()],
        help='train a model on RAVDESS and write a bundle',
        description='Train on RAVDESS. A run that was interrupted goes on where it stopped.',
    )
    parser.add_argument('recipe', help='a recipe file, or the name of a shipped one')
    parser.add_argument('--corpus', type=Path, required=True, help='folder that holds RAVDESS')
    parser.add_argument('--out', type=Path, help='folder of the run (default runs/RECIPE)')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train, and print how well the bundle does on the validation part."""
    from ser_ros.bundle import load_bundle
    from ser_ros.paths import share_path
    from ser_ros.training.card import write_card
    from ser_ros.training.recipe import load_recipe
    from ser_ros.training.train import train

    path = Path(options.recipe)
    if path.suffix != '.yaml':
        path = share_path(f'config/recipes/{options.recipe}.yaml')
    recipe = load_recipe(path)
    out = options.out or Path('runs', recipe.name)
    bundle = load_bundle(train(recipe, options.corpus, out, options.device))
    write_card(bundle)
    print_figures('validation', bundle.info.metrics['validation'])
    print(f'bundle: {bundle.path}')
