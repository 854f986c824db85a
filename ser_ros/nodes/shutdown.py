"""Whether the process was asked to end; signals are handled from before the heavy imports on."""

import os
import signal
import socket
import threading

REQUESTED = threading.Event()

NODES_EXIST = threading.Event()
"""Set when there are nodes, which have to be destroyed before the process ends."""

TIMEOUT = 5.0
"""Seconds in which a process must end after it was asked to."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def install_signal_handlers() -> None:
    """Make SIGINT and SIGTERM set `REQUESTED`, and nothing else.

    Where the main thread hangs in a GPU driver or a sound server, Python runs no signal handler.
    So that the process ends all the same, a thread receives the signals through a socket.
    """
    if REQUESTED.is_set() or signal.getsignal(signal.SIGTERM) is _request:
        return
    for number in SIGNALS:
        signal.signal(number, _request)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    threading.Thread(target=_watch, args=(reader, writer), daemon=True).start()


def _request(*_: object) -> None:
    REQUESTED.set()


def _watch(reader: socket.socket, _: socket.socket) -> None:
    while not set(reader.recv(64)) & set(SIGNALS):
        pass
    if not NODES_EXIST.is_set():
        os._exit(0)  # it still imports, which takes seconds, and there is nothing to undo
    exit_after_timeout()


def exit_after_timeout() -> None:
    """End the process with status 1 if it has not ended `TIMEOUT` seconds from now."""
    deadline = threading.Timer(TIMEOUT, os._exit, (1,))
    deadline.daemon = True
    deadline.start()
