"""The page is complete and correct, and a real browser shows all of it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browsing import resize, start_browser
from markupsafe import escape
from selenium.webdriver.common.by import By

from ser_ros import SerError
from ser_ros.training.data.corpora import Clip
from ser_ros.training.evaluation.clip_result import ClipResult
from ser_ros.training.evaluation.metrics import KEPT, subset_results
from ser_ros.training.reports import html
from ser_ros.training.reports.formatting import (
    KNOWN_VOICES,
    MEANINGS,
    SUMMARY,
    percent,
    with_interval,
)
from ser_ros.training.reports.html import (
    MAX_SECONDS,
    N_HARDEST,
    hardest,
    write_report,
    write_results,
)

NAMES = ['happy', 'sad', 'angry']
TITLE = 'A <b>bold</b> & "quoted" title </script>'


@pytest.fixture(scope='module', autouse=True)
def every_hardest_clip():
    """Other tests show fewer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, 'N_HARDEST', N_HARDEST)
        yield


@pytest.fixture(scope='module')
def clip_results(speech, tmp_path_factory):
    """Twelve clips of two speakers, the last without speech, the first too long for the page."""
    folder = tmp_path_factory.mktemp('clips')
    generator = np.random.default_rng(1)
    results = []
    for index in range(12):
        path = folder / f'clip-{index:02}.flac'
        seconds = 2 * MAX_SECONDS if index == 0 else 1
        soundfile.write(path, speech[16_000 * index // 2 :][: 16_000 * seconds], 16_000)
        rows = generator.dirichlet(np.ones(3), 3 if index < 11 else 0)
        clip = Clip(
            path, NAMES[index % 3], f'0{index % 2}', 'RAVDESS', ['female', 'male'][index % 2]
        )
        results.append(ClipResult(clip, np.log(rows).reshape(-1, 3), [None, 'happy'][: len(rows)]))
    return results


@pytest.fixture(scope='module')
def results(clip_results):
    test = subset_results(clip_results, NAMES, 'speaker-independent, fold 2')
    test['metrics']['nonspeech'] = {
        'protocol': 'made-up sounds',
        'rows': {
            'speech (windows)': {
                'count': 9,
                'rejected': 0.25,
                'confidence': 0.5,
                'answered': None,
            },
            'hum': {'count': 50, 'rejected': 0.5, 'confidence': 0.7, 'answered': 0.02},
        },
    }
    row = {
        **{key: test['metrics'][key] for key in KEPT},
        'unweighted_accuracy': 0.4,
        'unweighted_accuracy_interval': [0.3, 0.5],
        'no_speech': 3,
    }
    test['metrics']['known_voices'] = {'speakers': 2, 'adapted': row, 'unadapted': row}
    test['metrics']['conditions'] = {
        'protocol': 'made-up hail',
        'rows': {
            'clean': {**row, 'accuracy_change': None, 'accuracy_change_interval': None},
            'hail': {**row, 'accuracy_change': -0.2, 'accuracy_change_interval': [-0.25, 0.1]},
        },
    }
    return {
        'title': TITLE,
        'facts': {'recipe': {'seed': 3}, 'classes': NAMES, 'parameters': 1234, 'note': '<i>'},
        'subsets': {
            'validation': subset_results(clip_results[:6], NAMES, 'speaker-independent, fold 1'),
            'test': test,
        },
        'history': [
            {'epoch': epoch, 'train_loss': 2 - epoch, 'val_loss': 2.0, 'val_accuracy': 0.1 + epoch}
            for epoch in range(2)
        ],
    }


@pytest.fixture(scope='module')
def page(results, clip_results, tmp_path_factory):
    path = tmp_path_factory.mktemp('report') / 'report.html'
    write_report(path, results, clip_results)
    return path


def embedded(text):
    (found,) = re.findall(r'<script type="application/json" id="results">(.*?)</script>', text)
    return json.loads(found)


def test_the_page_carries_its_numbers(page, results, tmp_path):
    assert embedded(page.read_text()) == results
    write_results(tmp_path / 'results.json', results)
    assert json.loads((tmp_path / 'results.json').read_text()) == results


def test_the_page_is_one_small_file_that_asks_for_no_other(page):
    assert [path.name for path in page.parent.iterdir()] == ['report.html']
    assert page.stat().st_size < 3e6
    text = page.read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(sources) > 20
    assert all(source.startswith('data:') for source in sources)
    assert "default-src 'none'" in text


def test_text_is_not_markup(page):
    text = page.read_text()
    assert '<b>bold' not in text
    assert '<i>' not in text
    assert '&lt;b&gt;bold' in text


def test_a_page_with_recordings_names_their_corpus(page, results, tmp_path):
    assert 'contains recordings of RAVDESS' in page.read_text()
    write_report(tmp_path / 'none.html', results)
    text = (tmp_path / 'none.html').read_text()
    assert 'recordings' not in text
    assert '<audio' not in text


def test_the_hardest_clips_come_first(clip_results):
    chosen = hardest(clip_results, NAMES)
    assert len(chosen) == N_HARDEST
    assert not chosen[0].has_speech
    losses = [-r.score[NAMES.index(r.clip.emotion)] for r in chosen[1:]]
    assert losses == sorted(losses, reverse=True)
    left = [r for r in clip_results if r not in chosen]
    assert max(-r.score[NAMES.index(r.clip.emotion)] for r in left) <= losses[-1]


def test_metrics_are_written_with_their_interval():
    metrics = {'unweighted_accuracy': 0.5625, 'unweighted_accuracy_interval': [0.5, 0.619]}
    assert with_interval(metrics) == '56.2% [50.0, 61.9]'
    assert with_interval({**metrics, 'unweighted_accuracy_interval': None}) == '56.2%'
    assert percent(None) == '–'


def test_a_subset_without_any_speech_has_a_page_too(clip_results, results, tmp_path):
    subset = subset_results(clip_results[-1:], NAMES, 'silence')
    write_report(tmp_path / 'silent.html', {**results, 'subsets': {'test': subset}, 'history': []})
    assert '–' in (tmp_path / 'silent.html').read_text()


def test_no_incomplete_page_is_left(results, clip_results, tmp_path):
    path = tmp_path / 'report.html'
    path.write_text('before')
    gone = ClipResult(
        Clip(tmp_path / 'gone.wav', 'sad', '01', 'RAVDESS'), clip_results[0].windows, []
    )
    with pytest.raises(SerError, match=r'gone\.wav'):
        write_report(path, results, [gone])
    assert path.read_text() == 'before'
    with pytest.raises(SerError, match='cannot be written'):
        write_results(tmp_path / 'nowhere' / 'results.json', results)
    (tmp_path / 'folder').mkdir()
    with pytest.raises(SerError, match='cannot be written'):
        write_results(tmp_path / 'folder', results)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['folder', 'report.html']


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    """A function that opens a page, as wide as a telephone or a desk, in light or dark colours."""
    chromium = start_browser(tmp_path_factory.mktemp('chromium'))

    def open_page(path, width=1280, scheme='light'):
        resize(chromium, width, scheme)
        chromium.get(Path(path).as_uri())
        return chromium

    yield open_page
    chromium.quit()


IMAGES = """
return [...document.images].map(image => [image.complete, image.naturalWidth, image.alt])
"""
SOUNDS = """
const done = arguments[0], sounds = [...document.querySelectorAll('audio')];
Promise.all(sounds.map(sound => new Promise(resolve => {
    const settle = () => resolve([sound.readyState, sound.duration, sound.error?.message ?? null]);
    if (sound.readyState >= 1) settle();
    else { sound.onloadedmetadata = settle; sound.onerror = settle; }
}))).then(done);
"""


def test_a_browser_shows_pictures_and_plays_sounds(browser, page):
    chromium = browser(page)
    # Chromium's own page of new tabs complains where there is no network.
    log = [e for e in chromium.get_log('browser') if not e['message'].startswith('chrome://')]
    assert log == []
    assert chromium.title == TITLE
    images = chromium.execute_script(IMAGES)
    # History, two subsets with seven, one of them with conditions, and one for each clip.
    assert len(images) == 1 + 2 * 7 + 1 + N_HARDEST
    assert all(complete and width > 0 for complete, width, _ in images)
    assert all(alt for *_, alt in images)
    sounds = chromium.execute_async_script(SOUNDS)
    assert len(sounds) == N_HARDEST
    for ready, duration, error in sounds:
        assert (ready >= 1, error) == (True, None)
        assert duration == pytest.approx(1) or duration == pytest.approx(MAX_SECONDS)


def table(chromium, selector):
    """Texts of a table's cells, row by row."""
    found = chromium.find_element(By.CSS_SELECTOR, selector)
    return [
        [cell.text for cell in row.find_elements(By.CSS_SELECTOR, 'th, td')]
        for row in found.find_elements(By.CSS_SELECTOR, 'tr')
    ]


def test_the_tables_hold_the_numbers_of_the_json(browser, page, results):
    chromium = browser(page)
    subsets = json.loads(
        chromium.execute_script("return document.getElementById('results').textContent")
    )['subsets']
    assert subsets == results['subsets']
    metrics = [subset['metrics'] for subset in subsets.values()]
    assert table(chromium, '#summary') == [
        ['metric', 'validation', 'test'],
        *([label, *(write(values) for values in metrics)] for label, write in SUMMARY.items()),
        [KNOWN_VOICES, '–', '40.0% [30.0, 50.0] (40.0% [30.0, 50.0])'],
    ]
    for number, values in enumerate(metrics, 1):
        assert table(chromium, f'#subset-{number} .classes')[1:] == [
            [
                name,
                str(c['clips']),
                percent(c['precision']),
                percent(c['recall']),
                percent(c['f1']),
            ]
            for name, c in values['classes'].items()
        ]
        corpora = table(chromium, f'#subset-{number} .groups')
        ravdess = values['groups']['corpus']['RAVDESS']
        assert corpora[1:] == [
            [
                'RAVDESS',
                str(ravdess['speakers']),
                str(ravdess['clips']),
                with_interval(ravdess),
                percent(ravdess['accuracy']),
            ]
        ]
    assert table(chromium, '.nonspeech')[1:] == [
        ['speech (windows)', '9', '25.0%', '50.0%', '–'],
        ['hum', '50', '50.0%', '70.0%', '2.0%'],
    ]
    assert len(chromium.find_elements(By.CLASS_NAME, 'nonspeech')) == 1
    clean, hail = table(chromium, '.conditions')[1:]
    assert clean[:4] == ['clean', '40.0% [30.0, 50.0]', '–', '25.0%']
    assert hail[:4] == ['hail', '40.0% [30.0, 50.0]', '-20.0 [-25.0, +10.0]', '25.0%']
    assert len(chromium.find_elements(By.CLASS_NAME, 'conditions')) == 1
    (plot,) = chromium.find_elements(By.CSS_SELECTOR, 'img[alt^="Metrics under each condition"]')
    assert plot.get_attribute('alt').endswith('clean 40.0%, hail 40.0%')
    text = chromium.find_element(By.TAG_NAME, 'body').text
    assert 'made-up hail.' in text
    assert 'Protocol: made-up sounds.' in text
    for values in metrics:
        assert values['protocol'] in text


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_fits_on_a_telephone(browser, page, scheme):
    chromium = browser(page, width=360, scheme=scheme)
    assert chromium.execute_script('return document.documentElement.scrollWidth') <= 360
    paper = chromium.execute_script('return getComputedStyle(document.body).backgroundColor')
    assert paper == {'light': 'rgb(255, 255, 255)', 'dark': 'rgb(21, 24, 28)'}[scheme]


CUT = """
return [...document.querySelectorAll('table')].filter(table =>
    Math.max(table.scrollWidth, table.parentElement.scrollWidth) > table.parentElement.clientWidth
    || table.getBoundingClientRect().right > innerWidth).map(table => table.className || table.id)
"""


@pytest.mark.parametrize('width', [2560, 1920, 1280, 1024, 900, 850, 768, 600, 360])
def test_no_table_is_cut_at_any_width(browser, page, width):
    chromium = browser(page, width=width)
    assert chromium.execute_script(CUT) == []


def test_a_wide_window_is_used(browser, page):
    chromium = browser(page, width=1920)
    right = "return Math.max(...[...document.querySelectorAll('%s')].map(e => e.getBoundingClientRect().right))"
    assert chromium.execute_script(right % '#subset-2 table') > 1200
    assert chromium.execute_script(right % '#subset-2 figure') > 1700


def test_a_telephone_shows_the_title_of_each_number(browser, page):
    chromium = browser(page, width=360)
    title = "return getComputedStyle(document.querySelector('.classes td'), '::before').content"
    assert chromium.execute_script(title) == '"clips"'


def test_the_rows_of_the_summary_are_explained(page):
    text = page.read_text()
    assert set(MEANINGS) <= {*SUMMARY, KNOWN_VOICES}
    for label, meaning in MEANINGS.items():
        assert f'<dt>{label}</dt>' in text
        assert f'<dd>{escape(meaning)}</dd>' in text


def test_the_page_loads_nothing_from_elsewhere(browser, page, tmp_path):
    """Its security policy prevents it: a foreign image in the page is not fetched."""
    text = page.read_text().replace('<h2>', '<img src="https://example.org/a.png"><h2>', 1)
    (tmp_path / 'foreign.html').write_text(text)
    chromium = browser(tmp_path / 'foreign.html')
    (entry,) = chromium.get_log('browser')
    assert 'Content Security Policy' in entry['message']
