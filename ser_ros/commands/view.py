"""Show a sound file or a bag on a page, as a file of its own, or as a picture."""

import argparse
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ser_ros import SerError
from ser_ros.commands.arguments import (
    backend_argument,
    device_argument,
    path_of,
    reading,
    sound_arguments,
)
from ser_ros.commands.page_arguments import page_arguments, serve
from ser_ros.commands.sounds import SoundReader
from ser_ros.files import printable, write_atomically

if TYPE_CHECKING:
    from ser_ros.stream.backend import Backend
    from ser_ros.view.recording import Recording

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
WIDTH, HEIGHT = 1280, 1080
"""Of the picture, in pixels."""
PATIENCE = 120.0
"""Seconds that a browser may take for it."""


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `view`."""
    parser = commands.add_parser(
        'view',
        parents=[device_argument(), backend_argument(), sound_arguments(), page_arguments()],
        help='show a sound file or a bag on a page with a time line',
        description='Show what the model says of a sound file, or what was published in a bag, on '
        'the page of view_node with a time line and the sound. Of a bag without probabilities the '
        'sound is recognised, also with --bundle. Of more than half an hour only the beginning is '
        'shown.',
    )
    parser.add_argument(
        'file',
        type=path_of,
        metavar='FILE',
        help='WAV, FLAC, ..., or the folder or .mcap of a bag',
    )
    parser.add_argument('--bundle', default='', help='default: the shipped one')
    parser.add_argument(
        '--html',
        type=path_of,
        metavar='OUT',
        help='write one file that needs nothing else, instead of serving the page',
    )
    parser.add_argument(
        '--picture',
        type=path_of,
        metavar='OUT',
        help='write a .png of the page at its end; needs Chromium',
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the files that were asked for, or serve the page until it is interrupted."""
    from ser_ros.backends import load_backend
    from ser_ros.view.recording import to_html

    backend = load_backend(options.bundle, options.backend, options.device)
    recording = _read(options, backend)
    bundle = backend.path.name
    if options.html is not None or options.picture is not None:
        page = to_html(recording, bundle)
        if options.html is not None:
            write_atomically(options.html, page)
            print(printable(options.html))
        if options.picture is not None:
            _draw(page, options.picture)
            print(printable(options.picture))
        return
    model = recording.model
    model.about |= {
        'title': recording.title,
        'bundle': bundle,
        'recording': recording.about('/recording'),
    }
    serve(options, model, threading.Event().wait, recording=recording.flac())


def _read(options: argparse.Namespace, backend: 'Backend') -> 'Recording':
    from ser_ros.view.bag import is_bag, of_bag
    from ser_ros.view.recording import MAX_SECONDS, of_sound

    if is_bag(options.file):
        return of_bag(options.file, backend, anew=bool(options.bundle))
    samples = SoundReader(reading(options)).read(options.file, end=MAX_SECONDS)
    return of_sound(options.file.name, samples, backend)


def _draw(page: str, path: Path) -> None:
    """Have a browser draw the page, with a profile of its own that is deleted afterwards."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SerError(
            f'--picture needs a browser, one of {", ".join(BROWSERS)}; without one, `inspect` draws a '
            'picture of a sound file'
        )
    with tempfile.TemporaryDirectory() as folder:
        source, picture = Path(folder, 'page.html'), Path(folder, 'page.png')
        source.write_text(page)
        command = [
            *(browser, '--headless', '--disable-gpu', '--disable-dev-shm-usage'),
            *('--no-first-run', '--disable-background-networking', '--hide-scrollbars'),
            # Chromium has no sandbox for root.
            *(['--no-sandbox'] if os.geteuid() == 0 else []),
            f'--user-data-dir={folder}/profile',
            f'--window-size={WIDTH},{HEIGHT}',
            '--virtual-time-budget=3000',
            f'--screenshot={picture}',
            source.as_uri(),
        ]
        try:
            subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
        except (subprocess.SubprocessError, OSError) as error:
            raise SerError(f'{browser} did not draw the page: {error}') from error
        write_atomically(path, picture.read_bytes())
