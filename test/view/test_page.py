"""The page's own files: what they ask for, and their colours."""

import re

import pytest

from ser_ros.emotions import EMOTIONS
from ser_ros.view.server import PAGE

TEXTS = {path.name: path.read_text() for path in PAGE.iterdir()}
STYLE = TEXTS['style.css']


def test_it_asks_for_nothing_from_elsewhere_and_makes_no_html_of_text():
    for name, text in TEXTS.items():
        text = text.replace('http://www.w3.org/2000/svg', '')
        assert not re.search(r'https?://', text.replace("replace(/^http/, 'ws')", '')), name
        for way in ('innerHTML', 'outerHTML', 'insertAdjacentHTML', 'document.write', 'eval('):
            assert way not in text, name
        assert not re.search(r'\son\w+=|style="', text) or name.endswith('.js'), name


def test_it_is_small():
    assert sum(map(len, TEXTS.values())) < 60_000


def colours(scheme):
    light, dark = re.findall(r':root \{(.*?)\}', STYLE, re.DOTALL)
    found = dict(re.findall(r'--([\w-]+): (#\w+)', light))
    return (
        {**found, **dict(re.findall(r'--([\w-]+): (#\w+)', dark))} if scheme == 'dark' else found
    )


def luminance(text):
    digits = text[1:] if len(text) > 4 else ''.join(2 * d for d in text[1:])
    values = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_contrast_is_that_of_wcag(scheme):
    """Text 4.5 (level AA, 1.4.3), what is drawn 3 (1.4.11)."""
    found = colours(scheme)
    for paper in ('panel', 'paper'):
        for name in ('text', 'quiet', 'accent', 'warn', 'bad', 'good', 'speech-line'):
            assert contrast(found[name], found[paper]) >= 4.5, (name, paper)
    expressions = {emotion.expression for emotion in EMOTIONS.values()}
    for name in (*expressions, 'uncertain', 'other', 'wave'):
        assert contrast(found[name], found['panel']) >= 3, name


def test_every_expression_has_a_colour_and_a_shape_of_its_own():
    expressions = {emotion.expression for emotion in EMOTIONS.values()}
    shapes = dict(re.findall(r"(\w+): '(.)'", TEXTS['emotions.js'].partition('};')[0]))
    assert set(shapes) == {*expressions, 'uncertain'}
    assert len(set(shapes.values())) == len(shapes)
    for scheme in ('light', 'dark'):
        found = [colours(scheme)[name] for name in expressions]
        assert len(set(found)) == len(found)
