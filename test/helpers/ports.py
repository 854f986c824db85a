"""Ports for tests that need one by its number."""

import contextlib
import random
import socket


def free_port():
    """One that no program gets that leaves the choice to the system."""
    while not is_free(port := random.randrange(20_000, 30_000)):
        pass
    return port


def is_free(port):
    with contextlib.suppress(OSError), socket.create_server(('127.0.0.1', port)):
        return True
    return False
