"""Whether the process was asked to end, heard from before the heavy imports on."""

import os
import signal
import socket
import threading

ASKED = threading.Event()

TIMEOUT = 5.0
"""Seconds in which a process has to end, once it was asked to."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen() -> None:
    """Let SIGINT and SIGTERM set `ASKED`, and nothing else.

    Where the main thread hangs in a GPU or a sound server, Python hears no signal; so that the
    process ends all the same, a thread is told of signals by a socket.
    """
    if ASKED.is_set() or signal.getsignal(signal.SIGTERM) is _ask:
        return
    for number in SIGNALS:
        signal.signal(number, _ask)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    threading.Thread(target=_watch, args=(reader, writer), daemon=True).start()


def _ask(*_: object) -> None:
    ASKED.set()


def _watch(reader: socket.socket, _: socket.socket) -> None:
    while not set(reader.recv(64)) & set(SIGNALS):
        pass
    give_up_soon()


def give_up_soon() -> None:
    """End the process in `TIMEOUT` seconds if it has not ended by then, with status 1."""
    deadline = threading.Timer(TIMEOUT, os._exit, (1,))
    deadline.daemon = True
    deadline.start()
