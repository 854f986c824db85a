"""List the architectures."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from ser_ros.training.recipe import Recipe


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `models`."""
    parser = commands.add_parser(
        'models',
        help='list the architectures and their sizes',
        description='Each architecture with its parameters for eight classes: by its recipe with '
        "the research's front-end, by its modern one, and how many of them a recipe can load from "
        'a published file.',
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the table."""
    from ser_ros import SerError
    from ser_ros.models import MODELS
    from ser_ros.shipped import shipped_recipes
    from ser_ros.training.recipe import load_recipe

    recipes = [load_recipe(name) for name in shipped_recipes()]
    print(f'{"architecture":<28}{"research":>11}{"modern":>12}{"published":>12}')
    for name, architecture in MODELS.items():
        own = [recipe for recipe in recipes if recipe.architecture == name]
        try:
            sizes = '{:>11}{:>12}{:>12}'.format(*_sizes(own))
        except SerError as error:  # a package that it needs is not installed
            print(f'{name:<28} {error}')
        else:
            print(f'{name:<28}{sizes}  {architecture.__doc__.splitlines()[0]}')


def _sizes(recipes: list['Recipe']) -> tuple[str, str, str]:
    """Parameters by the research's recipe and by the first modern one, and the published ones."""
    from ser_ros.models import count_parameters
    from ser_ros.models.transfer import published_parameters

    research = [recipe for recipe in recipes if recipe.name.startswith('research/')]
    modern = _build(next(recipe for recipe in recipes if recipe not in research))
    old = f'{count_parameters(_build(research[0])):,}' if research else '-'
    published = published_parameters(modern)
    return old, f'{count_parameters(modern):,}', f'{published:,}' if published else '-'


def _build(recipe: 'Recipe') -> 'nn.Module':
    import torch

    from ser_ros.features import build_frontend
    from ser_ros.models import build_model

    n_features = build_frontend(recipe.frontend).n_features
    with torch.device('meta'):  # shapes without memory, so that large models cost nothing
        return build_model(recipe.architecture, n_features, 8, **recipe.hyperparameters)
