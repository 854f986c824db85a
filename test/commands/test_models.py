"""The list of architectures."""

import sys

import pytest

from ser_ros.__main__ import main
from ser_ros.models import MODELS


@pytest.fixture
def rows(capsys):
    """A function: the printed rows, each split into words, without the header."""

    def list_models():
        assert main(['models']) == 0
        out, err = capsys.readouterr()
        assert err == ''
        header, *lines = out.splitlines()
        assert header.split() == ['architecture', 'research', 'modern', 'published']
        return {line.split()[0]: line.split()[1:] for line in lines}

    return list_models


def test_all_architectures_are_listed_with_their_parameters(rows):
    listed = rows()
    assert list(listed) == list(MODELS)
    assert len(listed) == 9
    assert listed['parallel_cnn_transformer'][:3] == ['395,176', '397,288', '-']
    assert listed['parallel_cnn_attention_lstm'][0] == '263,593'
    assert listed['stacked_cnn_lstm'][0] == '147,816'
    assert listed['stacked_cnn_attention_lstm'][0] == '582,761'
    assert listed['vgg'][:3] == ['19,042,888', '19,042,888', '14,714,688']
    assert listed['perceptron'][:3] == ['-', '99,592', '-']
    assert listed['vggish'][2] == '72,141,184'
    for name, words in listed.items():
        assert ' '.join(words[3:]) == MODELS[name].__doc__.splitlines()[0]


def test_one_that_lacks_a_library_says_which(rows, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchvision.models.vgg', None)
    listed = rows()
    assert list(listed) == list(MODELS)
    assert ' '.join(listed['vgg']).startswith('vgg needs a torchvision')
