"""Which voices are remembered while they are absent."""

import numpy as np
import pytest

from ser_ros.nodes.absent_voices import KEPT, MAX_VOICES, AbsentVoices
from ser_ros.stream.adaptation import Adaptation


class SettableClock:
    """A clock that is set by hand."""

    seconds = 1_000.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return SettableClock()


@pytest.fixture
def absent(clock):
    return AbsentVoices(clock)


def known(n_utterances=1):
    adaptation = Adaptation()
    for _ in range(n_utterances):
        adaptation.learn(np.zeros((3, 1)), np.zeros(4))
    return adaptation


def test_a_voice_is_kept_until_it_returns(absent):
    anna, bob = known(), known()
    absent.add('anna', anna)
    absent.add('bob', bob)
    assert absent.pop('anna') is anna
    assert absent.pop('anna') is None
    assert absent.pop('bob') is bob


def test_a_voice_is_forgotten_after_a_while(absent, clock):
    absent.add('anna', known())
    clock.seconds += 1
    absent.add('bob', known())
    clock.seconds += KEPT - 0.5
    absent.forget_old()
    assert absent.pop('anna') is None
    assert absent.pop('bob') is not None


def test_a_voice_that_was_here_again_is_kept_from_then_on(absent, clock):
    absent.add('anna', known())
    clock.seconds += KEPT - 1
    absent.add('anna', absent.pop('anna'))
    clock.seconds += KEPT - 1
    absent.forget_old()
    assert absent.pop('anna') is not None


def test_ids_that_never_return_do_not_fill_the_memory(absent):
    """The longest absent are forgotten first, and those of which nothing is known do not count."""
    for n in range(MAX_VOICES + 10):
        absent.add(f'voice_{n}', known())
        absent.add(f'silent_{n}', known(0))
    kept = [n for n in range(MAX_VOICES + 10) if absent.pop(f'voice_{n}') is not None]
    assert kept == list(range(10, MAX_VOICES + 10))
    assert absent.pop('silent_50') is None


def test_all_are_forgotten_on_request(absent):
    absent.add('anna', known())
    absent.forget()
    assert absent.pop('anna') is None
