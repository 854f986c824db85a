"""The vocabulary holds together, and classes of one expression are one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_ros.emotions import EMOTIONS, RAVDESS_LABELS, ExpressionMap

# The string constants of hri_msgs/Expression.
ROS4HRI = {
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


def test_every_expression_is_one_of_ros4hri():
    assert {emotion.expression for emotion in EMOTIONS.values()} <= ROS4HRI


def test_expressions_that_are_named_otherwise():
    assert EMOTIONS['calm'].expression == EMOTIONS['neutral'].expression == 'neutral'
    assert EMOTIONS['fearful'].expression == 'scared'
    assert EMOTIONS['disgust'].expression == 'disgusted'


def test_valence_and_arousal_are_on_the_scale_and_on_the_right_side_of_it():
    for emotion in EMOTIONS.values():
        assert -1 <= emotion.valence <= 1
        assert -1 <= emotion.arousal <= 1
    assert EMOTIONS['happy'].valence > 0 > EMOTIONS['sad'].valence
    assert EMOTIONS['angry'].arousal > 0 > EMOTIONS['calm'].arousal
    assert (EMOTIONS['neutral'].valence, EMOTIONS['neutral'].arousal) == (0, 0)


def test_ravdess_labels_are_the_published_codes():
    assert list(RAVDESS_LABELS) == [f'{code:02}' for code in range(1, 9)]
    assert RAVDESS_LABELS['06'] == 'fearful'
    assert set(RAVDESS_LABELS.values()) == set(EMOTIONS)


def test_classes_of_one_expression_are_summed():
    expressions = ExpressionMap(['calm', 'angry', 'neutral'])
    assert expressions.expressions == ['neutral', 'angry']
    summed = expressions.sum_classes(np.array([0.3, 0.4, 0.3]))
    np.testing.assert_allclose(summed, [0.6, 0.4])


def test_valence_and_arousal_are_expectations():
    expressions = ExpressionMap(['happy', 'sad'])
    valence, arousal = expressions.valence_arousal(np.array([0.75, 0.25]))
    assert valence == pytest.approx(0.75 * 0.81 - 0.25 * 0.63)
    assert arousal == pytest.approx(0.75 * 0.51 - 0.25 * 0.27)


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
