"""Plot the predictions of a bundle for a sound file, or augmented versions of it."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ser_ros import SerError
from ser_ros.commands.arguments import path_of, reading, sound_arguments
from ser_ros.commands.sounds import SoundReader
from ser_ros.files import printable

if TYPE_CHECKING:
    import numpy as np

    from ser_ros.bundle import Bundle
    from ser_ros.training.recipe import AugmentationConfig
    from ser_ros.training.reports.plots import Figure

MAX_SECONDS, MAX_AUGMENTED_SECONDS = 60, 8
"""The most seconds of a file in one plot."""


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `inspect`."""
    parser = commands.add_parser(
        'inspect',
        parents=[sound_arguments()],
        help='plot the predictions of a bundle for a sound file, or augmented versions of it',
        description='Plot the waveform with voice activity, the spectrogram, attention over time '
        'and the emotion timeline. With --augment: several versions of the file as training '
        'augments it.',
    )
    parser.add_argument('file', metavar='FILE', help='WAV, FLAC, ...')
    parser.add_argument('--bundle', default='', help='default: the shipped one')
    parser.add_argument(
        '--augment',
        nargs='?',
        const='',
        metavar='RECIPE',
        help="plot versions augmented with this recipe instead (default: the bundle's)",
    )
    parser.add_argument(
        '--out',
        type=path_of,
        metavar='PLOT',
        help='.png, .svg or .pdf (default: FILE.png, here; FILE_2.png if that shows another file)',
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the plot, and print its path."""
    from ser_ros.bundle import load_bundle
    from ser_ros.training.reports import plots

    reader = SoundReader(reading(options))
    is_augmented = options.augment is not None
    suffix = '-augmented.png' if is_augmented else '.png'
    subject = None if options.out else Path(options.file)
    path = options.out or plots.own_path(Path(subject.stem + suffix), subject)
    plots.check_kind(path)
    if is_augmented:
        config = _augmentation(options.augment, options.bundle)
        figure = _draw_versions(options.file, reader, config)
    else:
        figure = _draw_overview(options.file, reader, load_bundle(options.bundle))
    plots.save(figure, path, subject)
    print(printable(path))


def _draw_overview(file: str, reader: SoundReader, bundle: 'Bundle') -> 'Figure':
    from ser_ros.audio import SAMPLE_RATE
    from ser_ros.audio.sources import read_audio
    from ser_ros.bundle_info import BundleError
    from ser_ros.training.reports import plots
    from ser_ros.training.reports.inspection import inspect, voice_activity

    rate = bundle.frontend.sample_rate
    samples = _beginning(file, reader, MAX_SECONDS)
    inputs = samples
    if rate != SAMPLE_RATE:
        inputs = read_audio(file, rate, end=MAX_SECONDS, reading=reader.reading)
    try:
        inspection = inspect(bundle, inputs)
    except BundleError as error:
        raise SerError(f'{printable(file)}: {error}') from error
    if not inspection.attention:
        name = bundle.info.architecture
        print(f'ser_ros: {name} has no attention over time to plot', file=sys.stderr)
    return plots.overview(samples, voice_activity(samples), **vars(inspection))


def _draw_versions(file: str, reader: SoundReader, config: 'AugmentationConfig') -> 'Figure':
    from ser_ros.audio import SAMPLE_RATE
    from ser_ros.training.data.corpora import MIN_DURATION
    from ser_ros.training.reports import plots
    from ser_ros.training.reports.augmented import versions

    samples = _beginning(file, reader, MAX_AUGMENTED_SECONDS)
    if len(samples) < MIN_DURATION * SAMPLE_RATE:
        raise SerError(
            f'{printable(file)}: shorter than {MIN_DURATION} s, the least for a training clip'
        )
    made = versions(samples, config)
    return plots.versions([(v.title, v.samples, v.features) for v in made])


def _beginning(file: str, reader: SoundReader, seconds: int) -> 'np.ndarray':
    """Float32 (n,) samples at 16 kHz, of the part of a file that fits into a plot."""
    from ser_ros.audio import SAMPLE_RATE

    samples = reader.read(file, end=seconds + 1)
    if len(samples) > seconds * SAMPLE_RATE:
        print(
            f'ser_ros: {printable(file)}: only its first {seconds} s are plotted', file=sys.stderr
        )
    return samples[: seconds * SAMPLE_RATE]


def _augmentation(recipe: str, bundle: str) -> 'AugmentationConfig':
    """The augmentation of a recipe, or of the bundle's recipe if `recipe` is ''."""
    from ser_ros.bundle import load_bundle
    from ser_ros.settings import from_dict
    from ser_ros.training.recipe import FOLDERS, AugmentationConfig, load_recipe

    if recipe:
        return load_recipe(recipe).augmentation
    values = load_bundle(bundle).info.recipe.get('augmentation', {})
    # Folders are those of the machine on which the bundle was trained.
    values = {key: value for key, value in values.items() if key not in FOLDERS}
    return from_dict(AugmentationConfig, values, "augmentation of the bundle's recipe")
