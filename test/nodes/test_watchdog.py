"""A thread that does not come back is noticed, and only then."""

import threading
import time

import pytest

from ser_ros.nodes import watchdog


@pytest.fixture
def watch(monkeypatch):
    monkeypatch.setattr(watchdog, 'STEP', 0.05)
    noticed = threading.Event()
    dog = watchdog.Watchdog(0.5, noticed.set)
    dog.start()
    yield dog, noticed
    dog.stop()
    dog.join(10)
    assert not dog.is_alive()


def test_it_is_quiet_while_it_is_reset(watch):
    dog, noticed = watch
    for _ in range(10):
        dog.reset()
        time.sleep(0.1)
    assert not noticed.is_set()


def test_it_notices_that_nobody_resets_it(watch):
    _, noticed = watch
    assert noticed.wait(10)
