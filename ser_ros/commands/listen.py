"""Show what the model says of a microphone, live."""

import argparse
import threading
from typing import TYPE_CHECKING

from ser_ros.commands.arguments import backend_argument, device_argument
from ser_ros.commands.page_arguments import page_arguments, serve

if TYPE_CHECKING:
    from ser_ros.audio.microphone import Microphone
    from ser_ros.view.live import LiveSession

PATIENCE = 5.0
"""Seconds in which the last window must end."""


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `listen`."""
    parser = commands.add_parser(
        'listen',
        parents=[device_argument(), backend_argument(), page_arguments()],
        help='show what the model says of a microphone, live on a page',
        description='Recognise the emotions in the sound of a microphone, and show them on a page, whose '
        'address is printed. Nothing is written to the disk. Ctrl-C ends it.',
    )
    parser.add_argument('--bundle', default='', help='default: the shipped one')
    parser.add_argument(
        '--microphone',
        default='default',
        metavar='NAME',
        help='index, part of the name, or default (see devices)',
    )
    parser.add_argument(
        '--channel',
        type=int,
        default=-1,
        metavar='N',
        help='the one channel to use of a microphone with several, from 0 (default -1: their average)',
    )
    parser.add_argument(
        '--keep-audio',
        type=float,
        default=120.0,
        metavar='SECONDS',
        help='sound that is kept in memory to play utterances (default 120; 0: none)',
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Listen until it is interrupted."""
    from ser_ros.audio.microphone import Microphone
    from ser_ros.backends import load_backend
    from ser_ros.view.live import LiveSession
    from ser_ros.view.model import Model

    backend = load_backend(options.bundle, options.backend, options.device)
    channels = 1 if options.channel < 0 else 0
    microphone = Microphone(options.microphone, channels=channels)
    model = Model(
        keep_audio=options.keep_audio,
        about={
            'bundle': f'{backend.path.name} · {backend.name} on {backend.device}',
            'title': microphone.description,
            'commands': ['enable', 'reset'],
        },
    )
    session = LiveSession(microphone, backend, model, options.channel)

    def process() -> None:
        microphone.open()
        _process(session, microphone)

    serve(options, model, process, commands=session.commands)


def _process(session: 'LiveSession', microphone: 'Microphone') -> None:
    """Process the sound in a thread, so that Ctrl-C in this one never interrupts a window."""
    errors: list[Exception] = []
    done = threading.Event()

    def work() -> None:
        try:
            session.run()
        except Exception as error:
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=work, name='listen', daemon=True).start()
    try:
        # Not by joining it: Python 3.11 takes a thread for ended where Ctrl-C interrupts that.
        while not done.wait(0.5):
            session.report()
    finally:
        microphone.close()
        # The interpreter would abort if it ended while a thread is within a library.
        done.wait(PATIENCE)
    if errors:
        raise errors[0]
