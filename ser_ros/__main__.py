"""The command line: python -m ser_ros COMMAND."""

import argparse
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Optional

from ser_ros import SerError, __version__
from ser_ros.commands import COMMANDS


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run one command; return its exit status."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As on stderr: the name of a file need not be UTF-8, nor the terminal.
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        status = options.run(options) or 0
        sys.stdout.flush()
        return status
    except SerError as error:
        print(f'ser_ros: {error}', file=sys.stderr)
    except ModuleNotFoundError as error:
        extra = 'view' if error.name in ('aiohttp', 'rosbags') else 'train'
        print(f"ser_ros: {error}; install it with: pip install '.[{extra}]'", file=sys.stderr)
    except KeyboardInterrupt as interruption:
        advice = getattr(options, 'interrupted', '')
        if arguments is None:  # of this process: a second Ctrl-C neither cuts off this line
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        print(f'ser_ros: interrupted{advice}', file=sys.stderr)
        if arguments is None:  # nor prints a traceback: it ends the process
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        return 128 + next(iter(interruption.args), signal.SIGINT)
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        _end_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f'ser_ros: {error}', file=sys.stderr)
        _end_output()
    return 1


def _end_output() -> None:
    """Flush stdout; if that fails, redirect it, since Python flushes it again when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m ser_ros', description=__doc__)
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    for name in COMMANDS:
        importlib.import_module(f'ser_ros.commands.{name}').configure(commands)
    return parser


if __name__ == '__main__':
    sys.exit(main())
