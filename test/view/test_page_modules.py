"""The page's own JavaScript, a function at a time, in a real browser from the real server."""

import base64
import json
import time
from concurrent.futures import Future

import numpy as np
import pytest

pytest.importorskip('aiohttp', reason="needs the page's server: pip install '.[view]'")
pytest.importorskip('selenium')

from browsing import complaints, requested, start_browser

from ser_ros.audio import SAMPLE_RATE
from ser_ros.emotions import EMOTIONS
from ser_ros.view import lane as lane_module
from ser_ros.view.model import Model, Topics
from ser_ros.view.server import Server
from ser_ros.view.spectrum import HOP, N_MELS

HTML = '<img src=x onerror=alert(1)>'
LOADED = """
    const given = [...arguments];
    const done = given.pop();
    const names = ['emotions', 'store', 'text', 'draw', 'voice'];
    Promise.all(names.map((name) => import(`/${name}.js`))).then(async (modules) => {
      const page = Object.assign({}, ...modules);
      done({ value: await (async () => { BODY })() });
    }).catch((error) => done({ error: String(error) }));
"""
"""JavaScript that imports the page's modules as `page`, and returns what BODY does."""
KINDS = ('sound', 'windows', 'decisions', 'speech', 'mood', 'utterances')


HANG = 7.5
"""Seconds for which the server can be told to hang; the page waits for five, and looks each second."""


@pytest.fixture(scope='module')
def server():
    def hang(_):
        time.sleep(HANG)
        answer = Future()
        answer.set_result((True, 'it is over'))
        return answer

    server = Server(Model(), commands={'hang': hang})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope='module')
def chromium(server, tmp_path_factory):
    chromium = start_browser(tmp_path_factory.mktemp('chromium'))
    try:
        chromium.get(server.url)
        yield chromium
        assert complaints(chromium) == []
    finally:
        chromium.quit()


@pytest.fixture
def run(chromium):
    """A function: run a body of JavaScript with the page's modules, and return what it returns."""

    def run_body(body, *values):
        result = chromium.execute_async_script(LOADED.replace('BODY', body), *values)
        assert 'error' not in result, result['error']
        return result.get('value')

    return run_body


def text_of(values, kind):
    return base64.b64encode(np.asarray(values, kind).tobytes()).decode()


def sound(time, n):
    """A piece of `n` columns, as the server sends it."""
    return {
        'time': time,
        'peaks': text_of([[-1 - i % 127, i % 127] for i in range(n)], np.int8),
        'mel': text_of([[i % 256] * N_MELS for i in range(n)], np.uint8),
    }


def state(head, **new):
    return {'head': head, 'speaking': False, 'level': -20.0, **new}


def status(**classes):
    lanes = {name: {'classes': found} for name, found in classes.items()}
    return {'lanes': lanes, 'nodes': [], 'missing': []}


def snapshot(lanes, **more):
    return {'type': 'snapshot', 'about': {}, 'lanes': lanes, 'status': status(), **more}


def frame(lanes, **more):
    return {'type': 'frame', 'lanes': lanes, **more}


STORED = """
    const store = new page.Store();
    const objects = [];
    for (const message of given) {
      store.add(JSON.parse(message));
      objects.push(new Map(store.lanes));
    }
    const plain = ([name, lane]) => [name, {
      ...lane,
      sound: lane.sound.map((p) => ({ time: p.time, n: p.n, peaks: [...p.peaks], mel: [...p.mel] })),
    }];
    return {
      lanes: [...store.lanes].map(plain),
      about: store.about,
      status: store.status,
      same: objects.slice(1).map((lanes, i) => [...lanes].every(([n, lane]) => objects[i].get(n) === lane)),
    };
"""


@pytest.fixture
def stored(run):
    """A function: what a store has after these messages."""

    def store(*messages):
        result = run(STORED, *map(json.dumps, messages))
        result['lanes'] = dict(result['lanes'])
        return result

    return store


# The store.


def test_a_snapshot_comes_first_and_then_what_is_new(stored):
    window, later = [1.0, [0.9, 0.1]], [1.25, [0.8, 0.2]]
    decision = {'time': 1.0, 'expression': 'sad'}
    found = stored(
        snapshot({'': state(1.0, windows=[window])}, about={'keep_audio': 5.0}),
        frame({'': state(1.25, windows=[later], decisions=[decision])}),
        frame({'': state(1.3)}, status=status(**{'': [['sad', 'sad']]})),
    )
    lane = found['lanes']['']
    assert lane['windows'] == [window, later]
    assert lane['decisions'] == [decision]
    assert lane['head'] == 1.3
    assert lane['level'] == -20.0
    assert lane['classes'] == [['sad', 'sad']]
    assert found['about'] == {'keep_audio': 5.0}
    assert found['same'] == [True, True]


def test_another_snapshot_replaces_everything(stored):
    found = stored(
        snapshot({'': state(1.0, windows=[[1.0, [1.0]]])}, about={'places': []}),
        snapshot({'': state(2.0, windows=[[2.0, [1.0]]])}),
    )
    assert found['lanes']['']['windows'] == [[2.0, [1.0]]]
    assert found['about'] == {}
    assert found['same'] == [False]


def test_a_restart_forgets_what_was_before_it(stored):
    old = {kind: [{'time': 9.0}] for kind in ('decisions', 'utterances')}
    old |= {kind: [[9.0, 1]] for kind in ('windows', 'speech', 'mood')} | {
        'sound': [sound(9.0, 2)]
    }
    found = stored(
        snapshot({'': state(9.0, **old)}),
        frame({'': state(1.0, restart=[True], windows=[[1.0, [1.0]]])}),
    )
    lane = found['lanes']['']
    assert {kind: len(lane[kind]) for kind in KINDS} == {**dict.fromkeys(KINDS, 0), 'windows': 1}
    assert found['same'] == [True]


def test_voices_come_and_go_whatever_their_names(stored):
    names = ('anna', HTML, '__proto__', 'constructor', '…')
    lanes = {name: state(1.0, windows=[[1.0, [1.0]]]) for name in names}
    classes = {name: [[name, name]] for name in (*names, 'nobody')}
    found = stored(snapshot({'gone': state(1.0)}), frame(lanes, status=status(**classes)))
    assert list(found['lanes']) == list(names)
    for name in names:
        assert found['lanes'][name]['classes'] == [[name, name]]
        assert len(found['lanes'][name]['windows']) == 1
    assert list(stored(snapshot(lanes), frame({}))['lanes']) == []
    # Without `lanes` of the status the lane stays as it is.
    assert stored(snapshot({'': state(None)}))['lanes']['']['classes'] == []


def test_sound_comes_as_signed_extremes_and_unsigned_shades(stored):
    peaks = [[-127, 127], [-1, 0], [0, 1]]
    mel = [[255] * N_MELS, [0] * N_MELS, list(range(N_MELS))]
    piece = {'time': 2.0, 'peaks': text_of(peaks, np.int8), 'mel': text_of(mel, np.uint8)}
    (found,) = stored(snapshot({'': state(2.06, sound=[piece])}))['lanes']['']['sound']
    assert found['n'] == 3
    assert found['peaks'] == [value for pair in peaks for value in pair]
    assert found['mel'] == [value for column in mel for value in column]


def test_the_sound_of_a_real_voice_is_what_was_sent(stored):
    samples = np.sin(np.arange(SAMPLE_RATE) / 7).astype(np.float32)
    model = Model(is_recording=True)
    model.set_lanes({'': Topics()})
    model.add_sound('', samples, 3_000_000_000)
    (sent,) = model.frame_and_snapshot()[1]['lanes']['']['sound']
    message = snapshot({'': state(4.0, sound=[sent])})
    (found,) = stored(message)['lanes']['']['sound']
    assert found['time'] == 3.0
    assert found['n'] == (SAMPLE_RATE - 512) // HOP + 1
    assert max(found['peaks']) == 127
    assert min(found['peaks']) == -127
    assert len(found['mel']) == found['n'] * N_MELS


def test_what_is_no_longer_shown_is_forgotten_but_for_the_state_that_it_left(stored):
    new = {
        'sound': [sound(float(t), 50) for t in range(100)],
        'windows': [[float(t), [1.0]] for t in range(100)],
        'speech': [[5.0, True]],
        'decisions': [{'time': float(t)} for t in range(100)],
        'utterances': [{'id': n, 'time': float(n)} for n in range(70)],
    }
    lane = stored(snapshot({'': state(100.0, **new)}))['lanes']['']
    assert [lane['sound'][0]['time'], len(lane['sound'])] == [85.0, 15]
    assert lane['windows'][0][0] == 38.0
    assert lane['decisions'][0]['time'] == 38.0
    assert lane['speech'] == [[5.0, True]]
    assert [item['id'] for item in lane['utterances']] == list(range(20, 70))


def test_a_page_and_its_server_forget_at_the_same_age(run):
    shown = run('return [page.SOUND_SHOWN, page.HISTORY, page.COLUMN]')
    assert shown == [lane_module.SOUND_SHOWN, lane_module.HISTORY, HOP / SAMPLE_RATE]


def test_a_recording_keeps_everything(stored):
    new = {
        'windows': [[float(t), [1.0]] for t in range(300)],
        'sound': [sound(float(t), 50) for t in range(300)],
        'utterances': [{'id': n, 'time': float(n)} for n in range(300)],
    }
    found = stored(snapshot({'': state(300.0, **new)}, about={'recording': {'start': 0.0}}))
    assert {len(found['lanes'][''][kind]) for kind in new} == {300}


def test_a_voice_without_news_has_not_changed(run):
    changed = run(
        """
        const store = new page.Store();
        const lane = (head) => ({ '': { head, speaking: false, level: null } });
        const changes = [];
        for (const head of [null, 1, 1, 2]) {
          const before = performance.now();
          store.add({ type: 'frame', lanes: lane(head) });
          changes.push(store.lanes.get('').changed >= before);
          await new Promise((done) => setTimeout(done, 5));
        }
        return changes;
        """
    )
    assert changed == [False, True, False, True]


@pytest.mark.parametrize(
    ('time', 'expected'), [(0.9, None), (1.0, 1), (1.5, 1), (2.0, 2), (99.0, 3)]
)
def test_the_last_item_before_a_time(run, time, expected):
    body = 'return [page.lastBefore(given[0], given[1]), page.lastBefore(given[2], given[1], (i) => i.time)]'
    pairs, items = [[1, 'a'], [2, 'b'], [3, 'c']], [{'time': t} for t in (1, 2, 3)]
    pair, item = run(body, pairs, time, items)
    assert (pair and pair[0], item and item['time']) == (expected, expected)
    assert run(body, [], time, []) == [None, None]


# The connection.


def test_a_connection_on_which_nothing_comes_is_made_anew(server, chromium, run):
    """As where a wireless network has gone: nobody closes it, and the browser does not notice."""

    def sockets():
        return sum(url.endswith('/live') for url in requested(chromium))

    state = 'return document.getElementById("connection").dataset.state'
    deadline = time.monotonic() + 30.0

    def wait_for(expected):
        while run(state) != expected:
            assert time.monotonic() < deadline, f'waited for {expected}, it is {run(state)}'
            time.sleep(0.05)

    wait_for('live')
    sockets()
    run(
        'fetch("/command/hang", { method: "POST", headers: { Authorization: `Bearer ${given[0]}` } })',
        server.token,
    )
    wait_for('lost')
    wait_for('live')
    assert sockets() == 1


def test_a_page_that_may_not_look_says_why_and_may_later(chromium, run):
    full = Server(Model(), max_viewers=1)
    full.start()
    own = chromium.current_window_handle
    connection = 'return document.getElementById("connection").textContent'

    def wait_for(expected):
        deadline = time.monotonic() + 30.0
        while run(connection) != expected:
            assert time.monotonic() < deadline, f'waited for {expected}, it is {run(connection)}'
            time.sleep(0.05)

    try:
        chromium.switch_to.new_window('tab')
        first = chromium.current_window_handle
        chromium.get(full.url)
        wait_for('live')
        chromium.switch_to.new_window('tab')
        chromium.get(full.url)
        wait_for('1 look already, trying again')
        second = chromium.current_window_handle
        chromium.switch_to.window(first)
        chromium.close()
        chromium.switch_to.window(second)
        wait_for('live')
        complaints(chromium)  # the browser's own of the refusals
        chromium.close()
    finally:
        chromium.switch_to.window(own)
        full.stop()


# How an emotion looks.


def test_every_expression_has_a_glyph_and_a_variable_and_others_share_one(run):
    expressions = sorted({emotion.expression for emotion in EMOTIONS.values()} | {'uncertain'})
    unknown = ['bored', HTML, '', 'constructor', '__proto__', 'toString', 'hasOwnProperty', None]
    looks = 'return given[0].map((name) => [page.glyphOf(name), page.variableOf(name)])'
    found = run(looks, expressions)
    assert len({glyph for glyph, _ in found}) == len(expressions)
    assert [variable for _, variable in found] == [f'--{name}' for name in expressions]
    assert run(looks, unknown) == [['○', '--other']] * len(unknown)
    colours = run('return given[0].map((name) => page.colour(page.variableOf(name)))', expressions)
    assert all(colour.startswith('#') for colour in colours)


@pytest.mark.parametrize(
    ('valence', 'arousal', 'words'),
    [
        (0.5, 0.5, 'pleasant, excited'),
        (-0.5, -0.5, 'unpleasant, calm'),
        (0.15, -0.15, 'neither pleasant nor unpleasant, neither calm nor excited'),
        (None, None, 'neither pleasant nor unpleasant, neither calm nor excited'),
    ],
)
def test_valence_and_arousal_are_words(run, valence, arousal, words):
    assert run('return page.wordsFor(given[0], given[1])', valence, arousal) == words


# Numbers and times.


def test_probabilities_are_in_percent(run):
    values = [0, 0.004, 0.005, 0.614, 1, None]
    expected = ['0 %', '0 %', '1 %', '61 %', '100 %', '0 %']
    assert run('return given[0].map(page.percent)', values) == expected


def test_seconds_are_minutes_and_seconds(run):
    values = [0, 4.25, 59.94, 59.96, 60, 61.5, 599.99, 3_600, -1]
    expected = [
        '0:00.0',
        '0:04.3',
        '0:59.9',
        '1:00.0',
        '1:00.0',
        '1:01.5',
        '10:00.0',
        '60:00.0',
        '0:00.0',
    ]
    assert run('return given[0].map(page.mark)', values) == expected
    assert run('return page.clock(107.5, 100)') == '0:07.5'
    assert run('return page.clock(100, 100)') == '0:00.0'
    assert run('return page.clock(0) === new Date(0).toLocaleTimeString()')


# A voice.

VOICE = """
    const store = new page.Store();
    const handlers = { announce() {}, clockOf: (time) => page.mark(time), play() {}, canPlay: () => true };
    const [{ lanes }, ...heads] = given;
    store.add({ type: 'snapshot', about: { recording: { start: 0 } }, lanes });
    const voice = new page.Voice('', store.lanes.get(''), handlers);
    document.body.append(voice.element);
    const text = (selector) => voice.find(selector).textContent;
    const seen = heads.map((head) => {
      voice.draw(head, { isStale: false, age: 0, places: [['sad', -0.6, -0.4]], isRecording: true, seconds: 12 });
      return {
        expression: text('.expression'),
        glyph: text('.glyph'),
        detail: text('.detail'),
        age: text('.age'),
        confidence: voice.find('.meter').getAttribute('aria-valuenow'),
        colour: voice.find('.decision').style.getPropertyValue('--colour'),
        cards: voice.element.querySelectorAll('.utterances li').length,
        mood: text('.mood').slice(0, 7),
      };
    });
    const picture = voice.find('.plane canvas').getContext('2d').getImageData(0, 0, 200, 200).data;
    voice.element.remove();
    return [...seen, picture.some((value) => value)];
"""


def test_before_the_first_decision_none_is_shown_not_even_a_later_one(run):
    """A position before it in a recording; a voice that was reset, of which nothing is known."""
    decision = {
        'time': 2.0,
        'expression': 'sad',
        'confidence': 0.8,
        'valence': -0.6,
        'arousal': -0.4,
    }
    new = {
        'decisions': [decision],
        'utterances': [{**decision, 'time': 3.0, 'id': 1, 'start': 1.0}],
        'mood': [[3.0, -0.6, -0.4, 1.0]],
    }
    lanes = {'': state(9.0, **new)}
    first, later, before, unknown, is_drawn = run(VOICE, {'lanes': lanes}, 0, 4, 1, None)
    assert later['expression'] == 'sad'
    assert later['glyph'] == '▼'
    assert later['detail'].startswith('80 % confident')
    assert (later['confidence'], later['cards'], later['mood']) == ('80', 1, 'Mood ov')
    for seen in (first, before, unknown):
        assert seen['expression'] == 'nothing yet'
        assert (seen['glyph'], seen['detail'], seen['age'], seen['colour']) == ('·', '', '', '')
        assert (seen['confidence'], seen['cards'], seen['mood']) == ('0', 0, 'No mood')
    assert is_drawn


# What pictures are made of.


def test_colours_of_the_style_sheet_are_numbers(run):
    colours = ['#fff', '#000000', '#1b2C3d', '#56b4e926']
    expected = [[255, 255, 255], [0, 0, 0], [27, 44, 61], [86, 180, 233]]
    assert run('return given[0].map(page.rgb)', colours) == expected


@pytest.mark.parametrize(
    ('speech', 'expected'),
    [
        ([], []),
        ([[2, True], [3, False], [4, True], [5, False]], [[2, 3], [4, 5]]),
        ([[2, True]], [[2, 10]]),
        ([[-5, True], [2, False]], [[0, 2]]),
        ([[-5, True]], [[0, 10]]),
        ([[-5, True], [-4, False]], []),
        ([[-4, False], [3, False]], []),
        ([[9, True], [12, False]], [[9, 10]]),
        ([[12, True]], []),
        ([[2, True], [3, True], [4, False]], [[2, 4]]),
    ],
)
def test_stretches_of_speech(run, speech, expected):
    assert run('return page.speechIn({ speech: given[0] }, 0, 10)', speech) == expected


def test_columns_have_their_places(run):
    body = """
        const found = [];
        page.eachColumn({ sound: given[0] }, 10, 10.1, (piece, i, place) => found.push([piece.time, i, place]));
        return found;
    """
    assert run(body, [{'time': 10.04, 'n': 2}]) == [[10.04, 0, 2], [10.04, 1, 3]]
    # Only what is within, of pieces that begin before it, or end after it.
    assert run(body, [{'time': 9.96, 'n': 3}]) == [[9.96, 2, 0]]
    assert run(body, [{'time': 10.08, 'n': 3}]) == [[10.08, 0, 4]]
    assert run(body, [{'time': 9, 'n': 10}, {'time': 11, 'n': 10}]) == []
    assert [place for *_, place in run(body, [{'time': 9.9, 'n': 90}])] == list(range(5))


def test_a_picture_has_no_column_beyond_its_width(run):
    """However a recording's position falls between columns, with sound before it and after it."""
    body = """
        const lane = { sound: [{ time: 100, n: 5000 }] };
        const n = page.SOUND_SHOWN / page.COLUMN;
        const wrong = [];
        for (let head = 120; head < 121; head += 0.0007) {
          const start = Math.floor((head - page.SOUND_SHOWN) / page.COLUMN) * page.COLUMN;
          let places = 0;
          page.eachColumn(lane, start, start + page.SOUND_SHOWN, (piece, i, place) => { if (place === places) places++; });
          if (places !== n) wrong.push([head, places]);
        }
        return wrong;
    """
    assert run(body) == []


def test_quiet_sound_is_seen_and_loud_sound_fits(run):
    low, quiet, silent, full = run('return [-127, 12.7, 0, 127].map(page.tall)')
    assert (low, silent, full) == (-1, 0, 1)
    assert quiet == pytest.approx(0.1**0.6)
