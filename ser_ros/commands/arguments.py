"""Arguments that several commands take."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ser_ros import SerError
from ser_ros.files import user_path
from ser_ros.shipped import shipped_recipes

if TYPE_CHECKING:
    from ser_ros.audio.reading import Reading
    from ser_ros.training.data.corpora import CorpusPath
    from ser_ros.training.learning.fit import Compute
    from ser_ros.workers import Load, Work, Workers


def device_argument() -> argparse.ArgumentParser:
    """A parent parser with `--device`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        '--device', default='auto', help='auto, cpu, cuda or cuda:N (default auto)'
    )
    return parser


def backend_argument() -> argparse.ArgumentParser:
    """A parent parser with `--backend`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        '--backend',
        choices=('auto', 'torch', 'onnx'),
        default='auto',
        help='what runs the model: torch, or onnx without torch on the CPU (default auto: torch on '
        'a GPU, onnx on a CPU)',
    )
    return parser


def corpus_argument(is_required: bool = True) -> argparse.ArgumentParser:
    """A parent parser with `--corpus` and what to use of its files; see `corpora`."""
    parser = argparse.ArgumentParser(add_help=False, parents=[sound_arguments()])
    parser.add_argument(
        '--corpus',
        type=_kind_and_path,
        action='append',
        required=is_required,
        default=None if is_required else [],
        metavar='PATH',
        help='folder or CSV file of a corpus, once for each corpus; KIND=PATH if the file names do '
        'not identify its kind (see corpus --help)',
    )
    return parser


def _kind_and_path(text: str) -> tuple[Path, str]:
    kind, separator, path = text.partition('=')
    is_named = separator and '/' not in kind
    return (path_of(path), kind) if is_named else (path_of(text), 'auto')


def sound_arguments() -> argparse.ArgumentParser:
    """A parent parser with what to use of sound files; see `reading`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        '--channel',
        type=_channel,
        default=-1,
        metavar='N',
        help='the one channel to use of files with several, from 0 (default -1: their average)',
    )
    parser.add_argument(
        '--full-scale',
        type=_positive,
        default=1.0,
        metavar='VALUE',
        help='the value that is full scale in files of float samples (default 1; 32768 for the '
        'values of 16-bit integers)',
    )
    return parser


def _channel(text: str) -> int:
    if not text.removeprefix('-').isdecimal() or (channel := int(text)) < -1:
        raise argparse.ArgumentTypeError(f'{text!r} is not the number of a channel, nor -1')
    return channel


def _positive(text: str) -> float:
    if not 0 < (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is not more than 0')
    return value


def reading(options: argparse.Namespace) -> 'Reading':
    """What to use of sound files, from the options of `sound_arguments`."""
    from ser_ros.audio.reading import Reading

    return Reading(options.channel, options.full_scale)


def corpora(options: argparse.Namespace) -> list['CorpusPath']:
    """The corpora of `corpus_argument`, for `read_corpora`."""
    return [(path, kind, reading(options)) for path, kind in options.corpus]


def workers_arguments(tasks: str) -> argparse.ArgumentParser:
    """A parent parser with `--workers`, `--cluster` and `--resume`; see `open_workers`.

    `tasks`: what is given out and finished, in the plural.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        '--workers',
        type=_count,
        metavar='N',
        help=f'processes that share the {tasks} (default 1; with --cluster all its processors)',
    )
    parser.add_argument(
        '--cluster',
        metavar='ADDRESS',
        help=f'share the {tasks} among the machines of a Ray cluster, on their processors: auto for '
        'the one that this machine belongs to, HOST:PORT, or local for one that ends with the '
        'command; all machines need ser_ros, and the files and this folder under the same paths',
    )
    parser.add_argument(
        '--resume',
        type=path_of,
        metavar='FILE',
        help=f'keep the results of finished {tasks} in this file; if it is there from the same '
        'command, which was interrupted, continue',
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not (value := int(text)):
        raise argparse.ArgumentTypeError(f'{text!r} is not a number from 1 on')
    return value


def worker_device(options: argparse.Namespace) -> str:
    """The `--device` of the workers. SerError for a GPU on a cluster."""
    if not options.cluster:
        return options.device
    if options.device not in ('auto', 'cpu'):
        raise SerError(
            f'--device {options.device}: --cluster computes on processors; leave one of them out'
        )
    return 'cpu'


def open_workers(options: argparse.Namespace, load: 'Load', work: 'Work') -> 'Workers':
    """What does the tasks, by the options of `workers_arguments`.

    `load`: loads `work` elsewhere; `work`: loaded in this process.
    """
    from ser_ros.workers import Processes, ThisProcess

    if options.cluster:
        from ser_ros.cluster import Cluster

        return Cluster(load, options.cluster, options.workers)
    n_workers = options.workers or 1
    return Processes(load, n_workers) if n_workers > 1 else ThisProcess(work)


def path_of(text: str) -> Path:
    """A path argument; an empty one, from a variable that is not set, would be this folder."""
    if not text:
        raise argparse.ArgumentTypeError('the path is empty')
    return user_path(text)


def training_arguments(recipe_nargs: Optional[str] = None) -> argparse.ArgumentParser:
    """A parent parser with the recipe, its corpora, and the devices of a training.

    `recipe_nargs`: '?' if the recipe may be left out.
    """
    parser = argparse.ArgumentParser(
        add_help=False, parents=[device_argument(), corpus_argument(), cache_argument()]
    )
    parser.add_argument(
        'recipe',
        nargs=recipe_nargs,
        metavar='RECIPE',
        help='the name of a shipped recipe, or a .yaml file',
    )
    parser.add_argument(
        '--set',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help='override a key of the recipe, such as optimization.epochs=20',
    )
    parser.add_argument(
        '--workers', type=int, default=0, help='processes that prepare batches (default 0)'
    )
    parser.set_defaults(interrupted='; the same command continues from the last completed epoch')
    return parser


def cache_argument() -> argparse.ArgumentParser:
    """A parent parser with `--cache` and `--no-cache`; see `cache_folder`."""
    parser = argparse.ArgumentParser(add_help=False)
    cache = parser.add_mutually_exclusive_group()
    cache.add_argument(
        '--cache',
        type=path_of,
        metavar='DIR',
        help='folder for decoded sound (default ~/.cache/ser_ros)',
    )
    cache.add_argument('--no-cache', action='store_true', help='decode the corpora each time')
    return parser


def cache_folder(options: argparse.Namespace) -> Optional[Path]:
    """The folder for decoded sound; None for none."""
    from ser_ros.training.data.cache import default_cache

    return None if options.no_cache else options.cache or default_cache()


def recipe_names() -> str:
    """The shipped recipes, for the end of a help text."""
    return f'shipped recipes: {", ".join(shipped_recipes())}'


def compute(options: argparse.Namespace, **others: int) -> 'Compute':
    """Devices and processes of a training, from the options of `training_arguments` and `others`.

    SerError for a missing device.
    """
    from ser_ros.stream.torch_backend import select_device
    from ser_ros.training.learning.fit import Compute

    device = str(select_device(options.device))
    return Compute(device=device, workers=options.workers, cache=cache_folder(options), **others)
