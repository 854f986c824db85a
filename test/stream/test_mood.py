import math

import pytest

from ser_ros.stream.mood import Mood


def test_it_begins_without_any():
    mood = Mood()
    assert (mood.valence, mood.arousal, mood.weight) == (0.0, 0.0, 0.0)


def test_one_utterance_is_the_mood():
    mood = Mood()
    mood.add(100.0, -0.6, 0.3, 0.5)
    assert mood.valence == pytest.approx(-0.6)
    assert mood.arousal == pytest.approx(0.3)
    assert mood.weight == 0.5


def test_confident_and_late_ones_count_more():
    mood = Mood(memory=20.0)
    mood.add(0.0, -1.0, 0.0, 1.0)
    mood.add(20.0, 1.0, 0.0, 0.5)
    keep = math.exp(-1)
    assert mood.valence == pytest.approx((0.5 - keep) / (0.5 + keep))
    assert mood.weight == pytest.approx(0.5 + keep)


def test_a_stamp_that_goes_back_counts_as_now():
    mood = Mood()
    mood.add(100.0, -1.0, 0.0, 1.0)
    mood.add(1.0, 1.0, 0.0, 1.0)
    assert mood.valence == pytest.approx(0.0)
