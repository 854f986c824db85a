"""The vocabulary is consistent, and classes of one expression are summed."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_ros import SerError
from ser_ros.emotions import (
    EMOTIONS,
    LABELS,
    OTHERS,
    ROS4HRI,
    SYNONYMS,
    Emotion,
    ExpressionMap,
    class_of,
    class_order,
    margin,
)

# The string constants of hri_msgs/Expression.
CONSTANTS = {
    'neutral',
    'angry',
    'sad',
    'happy',
    'surprised',
    'disgusted',
    'scared',
    'pleading',
    'vulnerable',
    'despaired',
    'guilty',
    'disappointed',
    'embarrassed',
    'horrified',
    'skeptical',
    'annoyed',
    'furious',
    'suspicious',
    'rejected',
    'bored',
    'tired',
    'asleep',
    'confused',
    'amazed',
    'excited',
}


def test_the_expressions_are_those_of_ros4hri():
    assert set(ROS4HRI) == CONSTANTS
    assert len(ROS4HRI) == len(CONSTANTS)


def test_others_are_expressions_that_no_class_has():
    assert {name: emotion.expression for name, emotion in OTHERS.items()} == {n: n for n in OTHERS}
    assert not {emotion.expression for emotion in EMOTIONS.values()} & set(OTHERS)
    assert OTHERS['bored'].arousal < 0 < OTHERS['excited'].arousal
    assert OTHERS['guilty'].valence < 0 < OTHERS['excited'].valence


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (('blase', 0.0, 0.0), "'blase' is no expression of ROS4HRI: use one of neutral, angry"),
        (('bored', -1.5, 0.0), 'valence is -1.5, not between -1 and 1'),
        (('bored', 0.0, math.nan), 'arousal is nan, not between -1 and 1'),
    ],
)
def test_invalid_emotions(values, message):
    with pytest.raises(SerError, match=re.escape(message)):
        Emotion(*values)


def test_expressions_with_other_names_than_their_classes():
    assert EMOTIONS['calm'].expression == EMOTIONS['neutral'].expression == 'neutral'
    assert EMOTIONS['fearful'].expression == 'scared'
    assert EMOTIONS['disgust'].expression == 'disgusted'


def test_valence_and_arousal_are_on_the_scale_and_on_the_right_side_of_it():
    for emotion in (*EMOTIONS.values(), *OTHERS.values()):
        assert -1 <= emotion.valence <= 1
        assert -1 <= emotion.arousal <= 1
    assert EMOTIONS['happy'].valence > 0 > EMOTIONS['sad'].valence
    assert EMOTIONS['angry'].arousal > 0 > EMOTIONS['calm'].arousal
    assert (EMOTIONS['neutral'].valence, EMOTIONS['neutral'].arousal) == (0, 0)


def test_ravdess_labels_are_the_published_codes():
    assert list(LABELS['RAVDESS']) == [f'{code:02}' for code in range(1, 9)]
    assert LABELS['RAVDESS']['06'] == 'fearful'
    assert set(LABELS['RAVDESS'].values()) == set(EMOTIONS)


@pytest.mark.parametrize('corpus', LABELS)
def test_every_label_is_of_one_class_and_no_class_has_two(corpus):
    classes = list(LABELS[corpus].values())
    assert set(classes) <= set(EMOTIONS)
    assert len(set(classes)) >= 4
    # EmoGator distinguishes amusement from elation, and good surprises from bad ones.
    assert len(classes) - len(set(classes)) == (2 if corpus == 'EmoGator' else 0)


def test_similar_labels_of_different_corpora_are_not_confused():
    """BanglaSER numbers its codes differently from RAVDESS; in German, F is Freude and A is Angst."""
    assert LABELS['BanglaSER']['01'] == 'happy'
    assert LABELS['RAVDESS']['01'] == 'neutral'
    assert (LABELS['EmoDB']['F'], LABELS['EmoDB']['A']) == ('happy', 'fearful')
    assert (LABELS['SAVEE']['f'], LABELS['SAVEE']['a']) == ('fearful', 'angry')
    assert 'L' not in LABELS['EmoDB']


@pytest.mark.parametrize(
    ('word', 'emotion'),
    [
        ('angry', 'angry'),
        ('Anger', 'angry'),
        ('HAPPINESS', 'happy'),
        ('Pleasant_Surprise', 'surprised'),
        ('pleasant-surprise ', 'surprised'),
        ('scared', 'fearful'),
        ('boredom', None),
        ('', None),
    ],
)
def test_words_have_a_class(word, emotion):
    assert class_of(word) == emotion


def test_every_synonym_is_of_a_class():
    assert set(SYNONYMS.values()) <= set(EMOTIONS)
    assert not set(SYNONYMS) & set(EMOTIONS)
    assert all(class_of(word) == emotion for word, emotion in SYNONYMS.items())


def test_classes_of_one_expression_are_summed():
    expressions = ExpressionMap(['calm', 'angry', 'neutral'])
    assert expressions.expressions == ['neutral', 'angry']
    summed = expressions.sum_classes(np.array([0.3, 0.4, 0.3]))
    np.testing.assert_allclose(summed, [0.6, 0.4])


def test_an_expression_is_decided_if_it_leads_the_next_one_by_the_threshold():
    expressions = ExpressionMap(['calm', 'happy', 'sad', 'neutral'])
    probabilities = np.array([0.3, 0.25, 0.25, 0.2])
    assert margin(expressions.sum_classes(probabilities), 0) == pytest.approx(0.25)
    assert expressions.decide(probabilities, 0.24) == ('neutral', pytest.approx(0.5))
    assert expressions.decide(probabilities, 0.26) == (None, pytest.approx(0.5))


def test_an_expression_that_does_not_lead_has_no_margin():
    assert margin(np.array([0.4, 0.6]), 0) == 0
    assert margin(np.array([1.0]), 0) == 1  # of one expression alone


def test_valence_and_arousal_are_expectations():
    expressions = ExpressionMap(['happy', 'sad'])
    valence, arousal = expressions.valence_arousal(np.array([0.75, 0.25]))
    assert valence == pytest.approx(0.75 * 0.81 - 0.25 * 0.63)
    assert arousal == pytest.approx(0.75 * 0.51 - 0.25 * 0.27)


def test_classes_of_ones_own_have_their_expression():
    own = {'contempt': Emotion('annoyed', -0.23, 0.31), 'irritation': OTHERS['annoyed']}
    expressions = ExpressionMap(['happy', 'contempt', 'irritation'], own)
    assert expressions.expressions == ['happy', 'annoyed']
    assert expressions.decide(np.array([0.4, 0.3, 0.3]), 0.1) == ('annoyed', pytest.approx(0.6))
    valence, _ = expressions.valence_arousal(np.array([0.0, 1.0, 0.0]))
    assert valence == pytest.approx(-0.23)
    assert class_order(['zest', 'sad', 'bored', 'neutral']) == ('neutral', 'sad', 'bored', 'zest')


def test_unknown_class_is_an_error():
    with pytest.raises(KeyError, match='melancholy'):
        ExpressionMap(['happy', 'melancholy'])


@given(
    st.lists(st.sampled_from(list(EMOTIONS)), min_size=1, unique=True),
    st.lists(st.floats(0.01, 1), min_size=8, max_size=8),
)
def test_any_subset_in_any_order_keeps_the_probability(names, weights):
    probabilities = np.array(weights[: len(names)]) / sum(weights[: len(names)])
    expressions = ExpressionMap(names)
    summed = expressions.sum_classes(probabilities)
    assert len(summed) == len(expressions.expressions) == len(set(expressions.expressions))
    assert summed.sum() == pytest.approx(1)
    for name, probability in zip(names, probabilities):
        index = expressions.expressions.index(EMOTIONS[name].expression)
        assert summed[index] >= probability
