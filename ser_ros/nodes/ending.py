"""Whether the process was asked to end, heard from before the heavy imports on."""

import signal
import threading

ASKED = threading.Event()


def listen() -> None:
    """Let SIGINT and SIGTERM set `ASKED`, and nothing else."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ASKED.set())
