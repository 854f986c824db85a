"""Diagnostics of the emotion node: its worst problem as the message, and all values."""

import pytest
from estimates import make_estimate

from ser_ros.nodes.diagnostics import Level, Report, combine, sum_counters
from ser_ros.nodes.emotion_diagnostics import (
    BUSY,
    LONG_SPEECH,
    STALE_AFTER,
    WARNINGS,
    EmotionDiagnostics,
    NodeStatus,
    Publisher,
    VoiceStatus,
)


def voice(voice_id='anna', **changes):
    values = {
        'voice_id': voice_id,
        'topic': f'/{voice_id}/audio',
        'format': 'S16LE',
        'decibels': -30.0,
        'backlog_bytes': 10,
        'seconds_without_block': 0.0,
        'counters': {'blocks': 5, 'windows': 2, 'gaps': 0},
        'n_utterances': 0,
    }
    return VoiceStatus(**{**values, **changes})


ANNA = Publisher('/anna')
SILENT = {'seconds_without_block': STALE_AFTER + 1}


@pytest.mark.parametrize(
    ('status', 'level', 'message'),
    [
        (NodeStatus([voice()]), Level.OK, 'listening'),
        (NodeStatus([]), Level.OK, 'nobody is tracked'),
        (NodeStatus([voice()], is_enabled=False), Level.OK, 'switched off by ~/enable'),
        (NodeStatus([voice()], is_muted=True), Level.OK, 'muted: the robot speaks'),
        (
            NodeStatus([voice(**SILENT)], is_muted=True, clock_problem='no /clock'),
            Level.WARN,
            'no /clock',
        ),
        (
            NodeStatus([voice()], robot_seconds=LONG_SPEECH + 1, robot_topic='/robot'),
            Level.WARN,
            'muted for a long time: /robot says',
        ),
        (NodeStatus([voice(**SILENT)]), Level.STALE, 'no sound has come on /anna/audio for 6 s'),
        (
            NodeStatus([voice(**SILENT, has_incompatible_publishers=True)]),
            Level.STALE,
            'offers less than reliability asks for',
        ),
        (
            NodeStatus([voice(**SILENT, lost_since_block=7, publishers=(ANNA,))]),
            Level.STALE,
            '7 messages were lost on the way instead: set reliability to reliable, or publish '
            'smaller blocks',
        ),
        (
            NodeStatus([voice(**SILENT, lost_since_block=7, is_reliable=True)]),
            Level.STALE,
            'instead: publish smaller blocks',
        ),
        (
            NodeStatus([voice(**SILENT, publishers=(Publisher('/mic', 'a/msg/B'),))]),
            Level.STALE,
            '/mic publishes a/msg/B there: see audio_topic and stamped',
        ),
        (NodeStatus([voice(**SILENT, publishers=())]), Level.STALE, 'nobody publishes there'),
        (NodeStatus([voice(), voice('ben', **SILENT)]), Level.WARN, 'no sound has come on /ben'),
        (
            NodeStatus([voice(**SILENT, has_ended=True, level_problem='it is muted')]),
            Level.OK,
            'the sound has ended',
        ),
        (
            NodeStatus([voice(**SILENT, has_ended=True), voice('ben')]),
            Level.OK,
            'listening',
        ),
        (
            NodeStatus([voice(level_problem='it is muted'), voice('ben', **SILENT)]),
            Level.WARN,
            'it is muted',
        ),
        (
            NodeStatus([voice(refusal='mp3 is not PCM', level_problem='it is muted')]),
            Level.WARN,
            'sound refused: mp3 is not PCM',
        ),
        (
            NodeStatus([voice(waits_for_format_on='/audio_info')]),
            Level.WARN,
            'no AudioInfo came on /audio_info',
        ),
        (NodeStatus([voice()], real_time_factor=BUSY + 0.01), Level.WARN, 'hardly keeps up'),
        (NodeStatus([voice()], real_time_factor=BUSY), Level.OK, 'listening'),
    ],
)
def test_the_worst_problem_is_the_message(status, level, message):
    report = EmotionDiagnostics().report(status)
    assert report.level == level
    assert message in report.message


@pytest.mark.parametrize('name', WARNINGS)
def test_a_counter_that_increases_is_a_warning_for_a_while(name):
    diagnostics = EmotionDiagnostics()
    assert diagnostics.report(NodeStatus([voice(counters={name: 0})])).level == Level.OK
    report = diagnostics.report(NodeStatus([voice(counters={name: 3})]))
    assert report.level == Level.WARN
    assert report.message == f'3 {WARNINGS[name]}'


def report_increase(*publishers, **increase):
    """The report after counters of a voice have increased, of a topic with these publishers."""
    diagnostics = EmotionDiagnostics()
    diagnostics.report(NodeStatus([voice(counters=dict.fromkeys(increase, 0))]))
    return diagnostics.report(NodeStatus([voice(counters=increase, publishers=publishers)]))


@pytest.mark.parametrize('increase', [{'gaps': 29}, {'seconds': 20.0}])
def test_publishers_whose_sound_is_mixed_are_named(increase):
    report = report_increase(ANNA, Publisher('/robot/mic'), **increase)
    assert report.level == Level.WARN
    assert '/anna and /robot/mic' in report.message
    assert '/anna and /anna' in report_increase(ANNA, ANNA, **increase).message
    assert 'publishers' not in report_increase(ANNA, **increase).message
    other = Publisher('/mic', 'a/msg/B')  # is not received
    assert 'publishers' not in report_increase(ANNA, other, **increase).message


def test_the_cause_comes_before_what_follows_from_it():
    beyond = {'samples beyond full scale': 7}
    is_clipping = [voice(counters=beyond, level_problem='it clips')]
    diagnostics = EmotionDiagnostics()
    diagnostics.report(NodeStatus([voice(counters=dict.fromkeys(beyond, 0))]))
    assert 'full_scale' in diagnostics.report(NodeStatus(is_clipping)).message
    assert 'publishers' in report_increase(ANNA, ANNA, gaps=9, **beyond).message


def test_a_second_publisher_that_sends_nothing_is_no_problem():
    increase = {'gaps': 0, 'seconds': 0.5}
    assert report_increase(ANNA, Publisher('/mic'), **increase).level == Level.OK


def test_a_loss_that_the_middleware_reports_is_named_before_its_effects():
    report = report_increase(ANNA, **{'lost seconds': 3, 'gaps': 1, 'messages lost': 2})
    assert report.message == f'2 {WARNINGS["messages lost"]}'


def test_stamps_that_jump_with_the_clock_are_no_warning_of_their_own():
    diagnostics = EmotionDiagnostics()
    diagnostics.report(NodeStatus([voice(counters={'gaps': 0})]))
    report = diagnostics.report(NodeStatus([voice(counters={'gaps': 1})], time_jumps=1))
    assert report.level == Level.OK
    assert report.values['time jumps'] == 1
    report = diagnostics.report(NodeStatus([voice(counters={'gaps': 3})], time_jumps=1))
    assert report.level == Level.WARN


def test_counters_of_removed_voices_stay_in_the_sum():
    diagnostics = EmotionDiagnostics()
    diagnostics.add_removed({'blocks': 7, 'gaps': 1})
    values = diagnostics.report(NodeStatus([voice(), voice('ben')])).values
    assert (values['blocks'], values['windows'], values['gaps']) == (17, 4, 1)


def test_every_voice_is_in_the_values():
    status = NodeStatus(
        [voice(), voice('ben', decibels=-40.0, n_utterances=7)], {'device': 'cpu'}, is_muted=True
    )
    values = EmotionDiagnostics().report(status).values
    assert values['device'] == 'cpu'
    assert values['voices'] == 'anna, ben'
    assert values['format'] == 'S16LE'
    assert values['level dB'] == '-30.0, -40.0'
    assert values['adaptation utterances'] == '0, 7'
    assert values['backlog bytes'] == 20
    assert 'latency p50 ms' not in values
    assert 'last decision' not in values
    assert 'real-time factor' not in values


def test_latencies_and_the_last_decision_are_in_the_values():
    diagnostics = EmotionDiagnostics()
    for milliseconds in range(1, 101):
        diagnostics.add_estimate(make_estimate(), milliseconds / 1_000)
    diagnostics.add_estimate(make_estimate(None), 0.2)
    values = diagnostics.report(NodeStatus([], real_time_factor=0.12345)).values
    assert values['latency p50 ms'] == 51.0
    assert values['latency max ms'] == 200.0
    assert values['last decision'] == 'uncertain'
    assert 0 <= values['last decision age s'] < 60
    assert values['last decision shift nats'] == 0
    assert values['real-time factor'] == 0.123
    assert values['voices'] == 'none'


@pytest.mark.parametrize('latency', [None, -1.8e9, -42.0])
def test_latencies_of_another_clock_are_not_reported(latency):
    diagnostics = EmotionDiagnostics()
    diagnostics.add_estimate(make_estimate(), latency)
    values = diagnostics.report(NodeStatus([])).values
    assert values['last decision']
    assert not [name for name in values if 'latency' in name]


@pytest.mark.parametrize(
    ('probabilities', 'unadapted', 'nats'),
    [
        ((0.8, 0.1, 0.1), (0.4, 0.3, 0.3), '0.69'),  # twice as probable
        ((0.4, 0.3, 0.3), (0.8, 0.1, 0.1), '-0.69'),
        ((0.2, 0.7, 0.1), (0.8, 0.1, 0.1), '1.95'),  # another decision
        ((0.6, 0.4, 1e-9), (0.6, 0.4 - 1e-3, 1e-3), '0.0'),  # a class that matters to nobody
        ((0.6, 0.4), (0.6 + 1e-9, 0.4), '0.0'),
        ((1.0, 0.0), (0.0, 1.0), '690.78'),
    ],
)
def test_the_shift_is_that_of_the_most_probable_class(probabilities, unadapted, nats):
    diagnostics = EmotionDiagnostics()
    diagnostics.add_estimate(make_estimate('happy', probabilities, unadapted), 0.1)
    values = diagnostics.report(NodeStatus([])).values
    assert str(values['last decision shift nats']) == nats


def test_rates_are_per_second():
    diagnostics = EmotionDiagnostics()
    values = diagnostics.report(NodeStatus([voice(counters={'blocks': 50})])).values
    assert values['blocks per second'] > 0
    assert values['windows per second'] == 0


def test_counters_are_summed_by_name():
    assert sum_counters([{'a': 1, 'b': 2}, {'a': 3}]) == {'a': 4, 'b': 2}
    assert sum_counters([]) == {}


OK, WARN, STALE = (Level.OK, 'listening'), (Level.WARN, 'it is muted'), (Level.STALE, 'no sound')


@pytest.mark.parametrize(
    ('reports', 'level', 'message'),
    [
        ([OK, OK], Level.OK, 'listening'),
        ([OK, WARN, OK], Level.WARN, 'b: it is muted'),
        ([OK, STALE, OK], Level.WARN, 'b: no sound'),
        ([STALE, WARN], Level.WARN, 'a: no sound (and 1 more of 2 namespaces)'),
        ([STALE, STALE], Level.STALE, 'no sound'),
        ([OK, (Level.OK, 'muted')], Level.OK, 'a: listening, b: muted'),
    ],
)
def test_of_several_namespaces_the_worst_is_the_message(reports, level, message):
    parts = {name: Report(*report) for name, report in zip('abc', reports)}
    report = combine(parts, {'device': 'cpu'})
    assert (report.level, report.message) == (level, message)
    assert (report.values, report.parts) == ({'device': 'cpu'}, parts)
