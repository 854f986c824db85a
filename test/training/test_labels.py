"""Labels that a recipe maps to classes."""

import re

import pytest

from ser_ros import SerError
from ser_ros.emotions import OTHERS, Emotion
from ser_ros.training.labels import UNUSED, LabelMap
from ser_ros.training.recipe import load_recipe

OWN = {'expression': 'annoyed', 'valence': -0.23, 'arousal': 0.31, 'source': 'a paper'}


@pytest.mark.parametrize(
    ('labels', 'corpus', 'label', 'found'),
    [
        ({'bored': 'bored'}, 'mine', 'Bored', 'bored'),
        ({'Langeweile': 'bored'}, 'mine', 'langeweile', 'bored'),
        ({'EmoDB:L': 'bored'}, 'EmoDB', 'L', 'bored'),
        ({'EmoDB:L': 'bored'}, 'mine', 'L', None),
        ({'L': 'tired', 'EmoDB:L': 'bored'}, 'EmoDB', 'L', 'bored'),
        ({'irritated': 'Anger'}, 'mine', 'irritated', 'angry'),
        ({'cough': None}, 'mine', 'cough', UNUSED),
        ({'very-cross': OWN}, 'mine', 'very_cross', 'very cross'),
        ({'cross': {**OWN, 'name': 'contempt'}}, 'mine', 'cross', 'contempt'),
        ({}, 'mine', 'bored', None),
    ],
)
def test_a_label_has_the_class_that_it_is_mapped_to(labels, corpus, label, found):
    assert LabelMap(labels).find(corpus, label, None) == found


def test_labels_without_an_entry_keep_their_class_and_others_may_lose_it():
    labels = LabelMap({'surprised': None, 'calm': 'neutral'})
    assert labels.find('mine', 'sad', 'sad') == 'sad'
    assert labels.find('mine', 'surprised', 'surprised') == UNUSED
    assert labels.find('mine', 'calm', 'calm') == 'neutral'
    assert labels.own == {}


def test_what_classes_of_ones_own_mean():
    labels = LabelMap(
        {
            'bored': 'bored',
            'boredom': {'expression': 'bored', 'name': 'bored'},
            'cross': OWN,
            'weary': {'expression': 'tired'},
            'zest': {'expression': 'happy', 'valence': 0.5, 'arousal': 0.6},
        }
    )
    assert labels.own == {
        'bored': OTHERS['bored'],
        'cross': Emotion(**OWN),
        'weary': OTHERS['tired'],
        'zest': Emotion('happy', 0.5, 0.6, 'not stated'),
    }


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        ({'bored': 'borred'}, "data.labels: bored: 'borred' is not a class; known are neutral, "),
        ({'bored': 'borred'}, 'to amazed, annoyed, bored'),
        ({'bored': 3}, 'data.labels: bored is 3, not the name'),
        ({'bored': {**OWN, 'expression': 'blase'}}, "bored: 'blase' is no expression of ROS4HRI"),
        ({'bored': {**OWN, 'valence': 3}}, 'bored: valence is 3.0, not between'),
        ({'bored': {**OWN, 'valance': 3}}, "unknown key 'valance'; did you mean 'valence'?"),
        ({'bored': {'expression': 'pleading'}}, 'bored: valence, arousal is missing'),
        ({'bored': {'valence': 0.0, 'arousal': 0.0}}, 'bored: expression is missing'),
        ({'happy': OWN}, "happy: name is 'happy', not that of a new class"),
        (
            {'x': {**OWN, 'name': 'y'}, 'y': {**OWN, 'valence': 0.1}},
            'the class y has two meanings',
        ),
    ],
)
def test_invalid_maps_are_one_line(labels, message):
    with pytest.raises(SerError, match=re.escape(message)) as caught:
        LabelMap(labels)
    assert '\n' not in str(caught.value)


def test_a_recipe_takes_and_checks_them():
    overrides = ['data.labels={bored: bored, cough: null}']
    assert load_recipe('vgg', overrides).data.labels == {'bored': 'bored', 'cough': None}
    with pytest.raises(SerError, match="recipe .*: data.labels: bored: 'dull' is not a class"):
        load_recipe('vgg', ['data.labels={bored: dull}'])
