"""Arguments of the commands that show a page, and how they serve it."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ser_ros.view.model import Model

PORT = 8790


def page_arguments() -> argparse.ArgumentParser:
    """A parent parser with `--host` and `--port`; see `serve`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address of the page (default 127.0.0.1, this machine alone; 0.0.0.0: all that reach '
        'it, with the token)',
    )
    parser.add_argument(
        '--port', type=int, default=PORT, help=f'port of the page (default {PORT}; 0: any)'
    )
    return parser


def serve(
    options: argparse.Namespace, model: 'Model', run: Callable[[], None], **settings: Any
) -> None:
    """Serve the page while `run` runs, and print its address; `settings`: of the `Server`."""
    from ser_ros.view.server import Server

    server = Server(model, options.host, options.port, **settings)
    server.start()
    try:
        print(f'page: {server.url}', flush=True)
        run()
    finally:
        server.stop()
