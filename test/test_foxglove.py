"""The layout for Foxglove has the topics of the code and the classes of the shipped model."""

import json
import re

import pytest

from ser_ros.bundle_info import load_info


@pytest.fixture(scope='module')
def layout(root):
    return json.loads((root / 'config' / 'foxglove' / 'ser_ros.json').read_text())


def panels_in(tree):
    if isinstance(tree, str):
        return {tree}
    return panels_in(tree['first']) | panels_in(tree['second'])


def test_every_panel_has_its_settings_and_its_place(layout):
    assert panels_in(layout['layout']) == set(layout['configById'])


def test_topics_are_those_of_the_nodes(layout, root):
    text = json.dumps(layout['configById'])
    topics = set(re.findall(r'"(/[\w/]+)', text))
    source = (root / 'ser_ros' / 'nodes' / 'publishers.py').read_text()
    published = {f'/{name}' for name in re.findall(r": str = '([\w/]+)'", source)}
    assert topics == published | {'/diagnostics'}


def test_each_class_has_a_line(layout):
    paths = layout['configById']['Plot!probabilities']['paths']
    assert [path['label'] for path in paths] == list(load_info('').class_names)
    for path in paths:
        assert f'class_id=="{path["label"]}"' in path['value']
