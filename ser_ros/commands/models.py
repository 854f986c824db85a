"""List the architectures."""

import argparse


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `models`."""
    parser = commands.add_parser(
        'models',
        help='list the architectures and their sizes',
        description="Each architecture with its parameters for eight classes: with the research's "
        '128 mels, with the 64 of the modern recipes, and how many of them a recipe can load from '
        'a published file.',
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the table."""
    from ser_ros import SerError
    from ser_ros.models import MODELS

    print(f'{"architecture":<28}{"128 mels":>11}{"64 mels":>12}{"published":>12}')
    for name, architecture in MODELS.items():
        try:
            sizes = '{:>11}{:>12}{:>12}'.format(*_sizes(name))
        except SerError as error:  # a package that it needs is not installed
            print(f'{name:<28} {error}')
        else:
            print(f'{name:<28}{sizes}  {architecture.__doc__.splitlines()[0]}')


def _sizes(architecture: str) -> tuple[str, str, str]:
    """Parameters with 128 mels and with 64, and the published ones among them."""
    import torch

    from ser_ros.models import build_model, count_parameters
    from ser_ros.models.transfer import published_parameters

    with torch.device('meta'):  # shapes without memory, so that large models cost nothing
        models = [build_model(architecture, n_mels, 8) for n_mels in (128, 64)]
    totals = [count_parameters(model) for model in models]
    published = published_parameters(models[0])
    return f'{totals[0]:,}', f'{totals[1]:,}', f'{published:,}' if published else '-'
