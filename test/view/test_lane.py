"""One voice: what is published of it becomes what is shown."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.view.lane import (
    HISTORY,
    MAX_NAME,
    MAX_UTTERANCES,
    ONSET,
    SOUND_SHOWN,
    UNDECIDED,
    UNDECIDED_UTTERANCE,
    Decision,
    Lane,
    most_probable,
)
from ser_ros.view.spectrum import HOP, N_MELS

T = 1_000.0
HAPPY = {'happy': 0.8, 'calm': 0.1, 'neutral': 0.1}
EVEN = {'happy': 0.3, 'calm': 0.35, 'neutral': 0.35}


@pytest.fixture
def lane():
    lane = Lane(keep_audio=20.0)
    lane.is_watched = True
    return lane


def receive(lane, seconds, start=T, block=512):
    samples = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    for first in range(0, len(samples), block):
        stamp = round(start * SECOND) + first * SECOND // SAMPLE_RATE
        lane.add_sound(samples[first : first + block], stamp, 0.0)


def columns(piece):
    peaks = np.frombuffer(base64.b64decode(piece['peaks']), np.int8).reshape(-1, 2)
    mel = np.frombuffer(base64.b64decode(piece['mel']), np.uint8).reshape(-1, N_MELS)
    assert len(peaks) == len(mel)
    return len(peaks)


def test_sound_is_cut_into_columns_at_their_times(lane):
    receive(lane, 2.0)
    pieces = lane.take_new()['sound']
    times = [p['time'] for p in pieces]
    total = 0
    for time, piece in zip(times, pieces):
        assert time == pytest.approx(T + total * HOP / SAMPLE_RATE, abs=1e-3)
        total += columns(piece)
    assert total == pytest.approx(100, abs=2)
    assert lane.head == pytest.approx(T + 2.0)
    assert lane.take_new() == {}


def test_nothing_is_drawn_while_nobody_looks(lane):
    lane.is_watched = False
    receive(lane, 2.0)
    lane.add_window(T + 2, HAPPY, 0.0)
    assert lane.take_new() == {'restart': [True]}
    assert not lane.snapshot()['sound']
    assert lane.snapshot()['windows']


def test_a_gap_starts_new_columns_and_history_is_limited(lane):
    receive(lane, 1.0)
    receive(lane, 1.0, start=T + 5)
    times = [piece['time'] for piece in lane.snapshot()['sound']]
    assert T + 5 in times
    receive(lane, SOUND_SHOWN + 3, start=T + 6)
    times = [piece['time'] for piece in lane.snapshot()['sound']]
    assert times[0] == pytest.approx(lane.head - SOUND_SHOWN, abs=0.1)
    lane.settle(100.0)
    for second in range(200):
        lane.add_window(T + 30 + second, HAPPY, 0.0)
    assert lane.snapshot()['windows'][0][0] == pytest.approx(T + 229 - HISTORY, abs=1)


def test_probabilities_are_those_of_the_classes(lane):
    lane.add_window(T, HAPPY, 0.0)
    assert lane.snapshot()['windows'] == [[T, [0.8, 0.1, 0.1]]]
    assert lane.about() == {
        'classes': [['happy', 'happy'], ['calm', 'neutral'], ['neutral', 'neutral']]
    }


def test_other_classes_start_anew(lane):
    lane.add_window(T, HAPPY, 0.0)
    lane.take_new()
    lane.add_window(T + 1, {'bored': 1.0}, 0.0)
    new = lane.take_new()
    assert new['restart']
    assert new['windows'] == [[T + 1, [1.0]]]
    assert lane.about() == {'classes': [['bored', 'bored']]}


def test_a_window_with_its_decision_is_decided(lane):
    lane.add_window(T, HAPPY, 0.0)
    lane.add_decision(Decision(T, 'happy', 0.8, 0.5, 0.3))
    lane.settle(10.0)
    (decision,) = lane.snapshot()['decisions']
    assert (decision['expression'], decision['confidence']) == ('happy', 0.8)


@pytest.mark.parametrize('order', ['decision first', 'window first'])
def test_a_window_without_one_was_uncertain(lane, order):
    for second, is_certain in ((0, True), (1, False)):
        steps = [lambda t=T + second: lane.add_window(t, EVEN, 0.0)]
        if is_certain:
            steps.append(lambda t=T + second: lane.add_decision(Decision(t, 'happy', 0.8, 0, 0)))
        for step in steps if order == 'window first' else reversed(steps):
            step()
    lane.settle(UNDECIDED / 2)
    assert len(lane.snapshot()['decisions']) == 1
    lane.settle(UNDECIDED + 0.1)
    decision = lane.snapshot()['decisions'][-1]
    assert decision['expression'] is None
    assert decision['leading'] == 'neutral'
    assert decision['confidence'] == pytest.approx(0.7)


def test_so_was_an_earlier_one_when_the_next_is_decided(lane):
    lane.add_window(T, EVEN, 0.0)
    lane.add_window(T + 0.25, HAPPY, 0.1)
    lane.add_decision(Decision(T + 0.25, 'happy', 0.8, 0.5, 0.3))
    assert [d['expression'] for d in lane.snapshot()['decisions']] == [None, 'happy']


def speak(lane, start, seconds, probabilities=HAPPY):
    receive(lane, seconds, start)
    lane.set_speaking(True, 0.0, start)
    lane.add_window(start + seconds - 0.1, probabilities, 0.0)


def test_an_utterance_begins_with_its_speech_and_has_its_sound(lane):
    receive(lane, 1.0, T - 1.0)
    speak(lane, T, 3.0)
    lane.set_speaking(False, 0.0)
    lane.add_utterance(Decision(T + 2.9, 'happy', 0.9, 0.5, 0.5))
    lane.settle(10.0)
    (utterance,) = lane.snapshot()['utterances']
    assert utterance['start'] == pytest.approx(T - ONSET)
    assert utterance['time'] == T + 2.9
    assert len(lane.cut(utterance['id'])) / 2 == pytest.approx(
        (2.9 + ONSET + 0.1) * SAMPLE_RATE, rel=0.1
    )
    assert lane.cut(utterance['id'] + 1) is None
    assert lane.snapshot()['mood'] == [[T + 2.9, 0.5, 0.5, 0.9]]


def test_one_that_is_cut_begins_where_the_last_one_ended(lane):
    speak(lane, T, 12.0)
    for end in (10.0, 12.0):
        lane.add_utterance(Decision(T + end, 'happy', 0.9, 0.5, 0.5))
    assert [u['start'] for u in lane.snapshot()['utterances']] == [T - ONSET, T + 10.0]


def test_one_without_a_decision_was_uncertain(lane):
    speak(lane, T, 3.0, EVEN)
    lane.set_speaking(False, 1.0)
    lane.settle(1.0 + UNDECIDED_UTTERANCE - 0.1)
    assert not lane.snapshot()['utterances']
    lane.settle(1.0 + UNDECIDED_UTTERANCE + 0.1)
    (utterance,) = lane.snapshot()['utterances']
    assert utterance['expression'] is None
    assert utterance['leading'] == 'neutral'
    assert not lane.snapshot()['mood']
    lane.settle(20.0)
    assert len(lane.snapshot()['utterances']) == 1


def test_so_was_an_earlier_one_when_speech_begins_again(lane):
    speak(lane, T, 3.0, EVEN)
    lane.set_speaking(False, 1.0)
    lane.set_speaking(True, 1.1)
    assert [u['expression'] for u in lane.snapshot()['utterances']] == [None]


def test_speech_without_a_window_is_no_utterance(lane):
    receive(lane, 1.0)
    lane.set_speaking(True, 0.0)
    lane.set_speaking(False, 1.0)
    lane.settle(20.0)
    assert not lane.snapshot()['utterances']
    assert [said for _, said in lane.snapshot()['speech']] == [True, False]


def test_time_that_goes_back_starts_anew(lane):
    lane.add_window(T, HAPPY, 0.0)
    lane.take_new()
    lane.add_window(T - 100, HAPPY, 0.0)
    new = lane.take_new()
    assert new['restart']
    assert new['windows'] == [[T - 100, [0.8, 0.1, 0.1]]]
    assert lane.head == T - 100
    assert lane.snapshot()['sound'] == []


def test_so_does_sound_and_what_is_late_then_is_not_shown(lane):
    receive(lane, 3.0, T + 100)
    receive(lane, 1.0, T)
    lane.add_window(T + 103, HAPPY, 0.0)
    assert lane.head == pytest.approx(T + 1.0)
    assert not lane.snapshot()['windows']


def test_what_is_late_is_shown_where_it_belongs(lane):
    receive(lane, 12.0)
    lane.add_window(T + 2.5, HAPPY, 0.0)
    assert lane.head == pytest.approx(T + 12.0)
    assert lane.snapshot()['windows'][0][0] == T + 2.5


def test_without_sound_the_windows_lead(lane):
    receive(lane, 1.0)
    lane.settle(100.0)
    assert lane.head == pytest.approx(T + 1.0)
    lane.add_window(T + 500, HAPPY, 100.0)
    assert lane.head == T + 500


def test_names_are_cut(lane):
    lane.add_window(T, {'x' * 500: 1.0}, 0.0)
    lane.add_decision(Decision(T, 'y' * 500, 1.0))
    assert len(lane.about()['classes'][0][0]) == MAX_NAME
    assert len(lane.snapshot()['decisions'][0]['expression']) == MAX_NAME


def test_old_utterances_go(lane):
    for second in range(MAX_UTTERANCES + 10):
        lane.add_utterance(Decision(T + second, 'sad', 0.5, -0.5, -0.5))
    assert len(lane.snapshot()['utterances']) == MAX_UTTERANCES


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.just('window'),
                st.floats(0, 1e9),
                st.dictionaries(st.text(max_size=3), numbers, max_size=4),
            ),
            st.tuples(st.just('decision'), st.floats(0, 1e9), st.text(max_size=3), numbers),
            st.tuples(st.just('utterance'), st.floats(0, 1e9), st.text(max_size=3), numbers),
            st.tuples(st.just('speaking'), st.booleans()),
            st.tuples(st.just('sound'), st.integers(0, 1_000), st.integers(0, 10**18)),
        ),
        max_size=30,
    )
)
def test_whatever_comes_can_be_sent(events):
    lane = Lane(keep_audio=1.0)
    lane.is_watched = True
    for number, (kind, *values) in enumerate(events):
        if kind == 'window':
            lane.add_window(*values, number)
        elif kind in ('decision', 'utterance'):
            time, name, value = values
            getattr(lane, f'add_{kind}')(Decision(time, name, value, value, value))
        elif kind == 'speaking':
            lane.set_speaking(*values, number)
        else:
            lane.add_sound(np.ones(values[0], np.float32), values[1], number)
        lane.settle(number)
    json.dumps([lane.take_new(), lane.snapshot(), lane.state(), lane.about()], allow_nan=False)


def test_the_most_probable_expression_sums_its_classes():
    assert most_probable(EVEN) == ('neutral', pytest.approx(0.7))
    assert most_probable({}) == (None, 0.0)
