"""Ports for tests that need one by its number."""

import contextlib
import random
import socket


def free_port():
    """One that no program gets that leaves the choice to the system."""
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), socket.create_server(('127.0.0.1', port)):
            return port
