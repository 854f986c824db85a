"""Whether the process was asked to end; signals are handled from before the heavy imports on."""

import os
import signal
import threading
from collections.abc import Callable

REQUESTED = threading.Event()

NODES_EXIST = threading.Event()
"""Set when there are nodes, which have to be destroyed before the process ends."""

ON_SIGNAL: list[Callable[[], None]] = []
"""Called in a thread when a signal came: Python's handler waits until the main thread is back in Python."""

TIMEOUT = 5.0
"""Seconds in which a process must end after it was asked to."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def install_signal_handlers() -> None:
    """Make SIGINT and SIGTERM set `REQUESTED`, and nothing else.

    Where the main thread hangs in a GPU driver or a sound server, Python runs no signal handler.
    So that the process ends all the same, a thread receives the signals through a pipe.
    """
    if REQUESTED.is_set() or signal.getsignal(signal.SIGTERM) is _request:
        return
    for number in SIGNALS:
        signal.signal(number, _request)
    reader, writer = os.pipe()  # never closed: more signals may come, until the process has ended
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()


def _request(*_: object) -> None:
    REQUESTED.set()


def _watch(reader: int) -> None:
    while not set(os.read(reader, 64)) & set(SIGNALS):
        pass
    if not NODES_EXIST.is_set():
        os._exit(0)  # it still imports, which takes seconds, and there is nothing to undo
    for call in ON_SIGNAL:
        call()
    exit_after_timeout()


def ignore_signals() -> None:
    """Let no further signal change the exit status: the nodes are gone, and the process ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def exit_after_timeout() -> None:
    """End the process with status 1 if it has not ended `TIMEOUT` seconds from now."""
    deadline = threading.Timer(TIMEOUT, os._exit, (1,))
    deadline.daemon = True
    deadline.start()
