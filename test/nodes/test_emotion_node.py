"""The emotion node, fed over the middleware."""

import hashlib
import threading
import time

import numpy as np
import pytest
import soxr
import torch

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2: . tools/ros_env.sh')

from audio_common_msgs.msg import AudioData  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from feeding import (  # noqa: E402
    PATIENT,
    START,
    Publisher,
    counters,
    direct,
    logged,
    probabilities_by_stamp,
    speech_then_silence,
    to_the_last_bit,
    wait_until_heard,
)
from lifecycle_msgs.msg import State  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402

from ser_ros.audio import SAMPLE_RATE, SECOND  # noqa: E402
from ser_ros.audio.formats import encode_s16le  # noqa: E402
from ser_ros.bundle import load_bundle  # noqa: E402
from ser_ros.features import LogMelConfig  # noqa: E402
from ser_ros.nodes.emotion_node import EmotionNode  # noqa: E402
from ser_ros.nodes.messages import to_header, to_nanoseconds  # noqa: E402

ENCODERS = {
    'S16LE': encode_s16le,
    'S32LE': lambda x: (x * (2.0**31 - 256)).astype('<i4').tobytes(),
    'F32LE': lambda x: x.astype('<f4').tobytes(),
}


@pytest.mark.parametrize(
    ('sample_format', 'rate', 'channels', 'block_frames'),
    [
        ('S16LE', 44_100, 2, 441),
        ('S16LE', 16_000, 1, 320),
        ('S32LE', 16_000, 1, 320),
        ('F32LE', 16_000, 1, 320),
        ('s16le', 16_000, 1, [1, 999, 7, 4096, 313]),
    ],
)
def test_every_format_gives_the_same_probabilities(
    graph, outputs, publisher, held_out_clip, sample_format, rate, channels, block_frames
):
    samples = speech_then_silence(held_out_clip)
    node = graph.make(EmotionNode, **PATIENT)
    publisher.wait_for_listener(node)
    publisher.announce(sample_format, channels, rate)
    sent = samples if rate == SAMPLE_RATE else soxr.resample(samples, SAMPLE_RATE, rate)
    data = ENCODERS[sample_format.upper()](np.repeat(sent[:, None], channels, axis=1))
    frame_bytes = len(data) // len(sent)
    publisher.play(data, frame_bytes, rate, block_frames, period=0.001)
    wait_until_heard(graph, node, outputs, len(samples) - SAMPLE_RATE // 10)

    expected = {e.stamp_ns: e.probabilities for e in direct(samples) if e.is_window}
    got = probabilities_by_stamp(outputs['probabilities'])
    assert got.keys() == expected.keys()
    for stamp, probabilities in expected.items():
        np.testing.assert_allclose(got[stamp], probabilities, atol=0.02)


def test_replay_speed_changes_nothing(graph, outputs, publisher):
    node = graph.make(EmotionNode, **PATIENT, threshold=0.0)
    publisher.wait_for_listener(node)
    publisher.announce()
    samples = speech_then_silence()[: 6 * SAMPLE_RATE]
    heard = []
    for n, period in enumerate((0.02, 0.002), start=1):
        for messages in outputs.values():
            messages.clear()
        # A second run of the same stamps is a jump back in time: the stream starts anew.
        publisher.play(encode_s16le(samples), period=period)
        graph.wait(
            lambda n=n: (
                counters(node)['samples'] >= n * len(samples) and len(outputs['utterance']) == 1
            ),
            'the same utterance again',
            60,
        )
        n_windows = counters(node)['windows'] // n
        for topic in ('emotion', 'probabilities'):
            graph.wait(lambda: len(outputs[topic]) == n_windows, topic)  # noqa: B023
        graph.wait(
            lambda: len(outputs['is_speaking']) > 1 and not outputs['is_speaking'][-1].data,
            'the end of the utterance',
        )
        heard.append({name: to_the_last_bit(messages) for name, messages in outputs.items()})
    assert heard[0]['probabilities']
    # Before the first run `is_speaking` was latched as false.
    heard[0]['is_speaking'] = heard[0]['is_speaking'][-2:]
    assert heard[0] == heard[1]
    assert counters(node)['dropped blocks'] == 0


def test_what_is_published_of_an_utterance(graph, outputs, publisher):
    node = graph.make(EmotionNode, **PATIENT, threshold=0.0)
    publisher.wait_for_listener(node)
    publisher.announce()
    samples = speech_then_silence()
    publisher.play(encode_s16le(samples), period=0.001)
    wait_until_heard(graph, node, outputs, len(samples) - 512)

    estimates = direct(samples)
    finals = [e for e in estimates if e.is_final]
    assert len(outputs['utterance']) == len(finals) == counters(node)['utterances']
    running = [e for e in estimates if not e.is_final]
    assert len(outputs['emotion']) == len(running) > len(finals)
    for message, estimate in zip(outputs['emotion'], running, strict=True):
        assert to_nanoseconds(message.header.stamp) == estimate.stamp_ns
        assert message.header.frame_id == 'mic'
        assert message.confidence == pytest.approx(estimate.confidence, abs=1e-6)
        assert message.valence == pytest.approx(estimate.valence, abs=1e-6)
        assert message.arousal == pytest.approx(estimate.arousal, abs=1e-6)
    names = [r.class_id for r in outputs['probabilities'][0].results]
    assert names == list(load_bundle().info.class_names)
    assert sum(r.score for r in outputs['probabilities'][0].results) == pytest.approx(1.0)
    # Only the newest is latched: one that another follows at once may be lost at this speed.
    spoken = [message.data for message in outputs['is_speaking']]
    assert True in spoken
    assert spoken[0] is spoken[-1] is False


def test_uncertain_windows_keep_their_probabilities(graph, outputs, publisher):
    node = graph.make(EmotionNode, **PATIENT, threshold=1.0)
    publisher.wait_for_listener(node)
    publisher.announce()
    samples = speech_then_silence()[: 6 * SAMPLE_RATE]
    publisher.play(encode_s16le(samples), period=0.001)
    wait_until_heard(graph, node, outputs, len(samples) - 512)
    assert outputs['probabilities']
    assert not outputs['emotion']
    assert not outputs['utterance']


@pytest.mark.parametrize(
    'info',
    [
        {'coding': 'mp3'},
        {'sample_format': 'S20LE'},
        {'channels': 0},
        {'rate': 0},
    ],
)
def test_a_format_that_cannot_be_decoded_is_refused(graph, outputs, publisher, capfd, info):
    node = graph.make(EmotionNode, device='cpu')
    publisher.wait_for_listener(node)
    publisher.announce(**info)
    graph.wait(lambda: counters(node)['refused formats'], 'refusal')
    for n in range(100):
        publisher.block(b'\x01\x02' * 320, START + n * SECOND // 50)
    graph.wait(lambda: counters(node)['refused blocks'] == 100, '100 refused blocks')
    assert logged(graph, capfd, 'sound refused')
    assert counters(node)['samples'] == 0
    publisher.announce()
    publisher.block(bytes(640))
    graph.wait(lambda: counters(node)['samples'] == 320, 'a good format after it')
    assert not outputs['probabilities']


def test_sound_waits_for_its_format(graph, publisher, capfd):
    node = graph.make(EmotionNode, device='cpu')
    publisher.wait_for_listener(node)
    publisher.play(bytes(70 * 640), period=0.02)
    graph.wait(lambda: counters(node)['blocks'] == 70, 'blocks held back')
    assert counters(node)['samples'] == 0
    # It is said when the first has waited for a second.
    assert logged(graph, capfd, 'no AudioInfo came on /audio_info')
    publisher.announce()
    graph.wait(lambda: counters(node)['samples'] == 70 * 320, 'all of them heard')


def test_format_by_parameter(graph, outputs):
    publisher = Publisher(graph, AudioData)
    node = graph.make(
        EmotionNode, **PATIENT, stamped=False, audio_topic='audio', sample_format='S16LE'
    )
    publisher.wait_for_listener(node)
    before = time.time_ns()
    samples = speech_then_silence()[: 6 * SAMPLE_RATE]
    publisher.play(encode_s16le(samples), period=0.001)
    wait_until_heard(graph, node, outputs, len(samples) - 512)
    stamps = list(probabilities_by_stamp(outputs['probabilities']))
    # Unstamped: the first block's arrival, then counted samples, however fast they came.
    expected = [e.stamp_ns - START for e in direct(samples) if e.is_window]
    assert np.diff(stamps).tolist() == np.diff(expected).tolist()
    assert before - SECOND < stamps[0] - expected[0] < time.time_ns()


def test_garbage_blocks_are_counted_and_harmless(graph, publisher):
    node = graph.make(EmotionNode, device='cpu')
    publisher.wait_for_listener(node)
    publisher.announce()
    publisher.block(b'')
    publisher.block(b'\x01')
    publisher.block(b'\x01\x02\x03')
    # Those that still waited would be dropped first.
    graph.wait(lambda: counters(node)['cut blocks'] == 2, 'blocks that were cut')
    publisher.block(bytes(10_000_000))
    graph.wait(lambda: counters(node)['dropped blocks'] == 1, '10 MB dropped')
    publisher.block(bytes(640), START + 60 * SECOND)
    graph.wait(lambda: counters(node)['samples'] == 321, 'a good block after them')
    assert counters(node)['empty blocks'] == 1


@pytest.mark.parametrize('name', ['silence', 'white noise', 'mains hum', 'melody'])
def test_what_nobody_said_is_no_emotion(graph, outputs, publisher, not_speech, name):
    node = graph.make(EmotionNode, **PATIENT)
    publisher.wait_for_listener(node)
    publisher.announce()
    sound = np.concatenate((not_speech[name], np.zeros(SAMPLE_RATE, np.float32)))
    publisher.play(encode_s16le(sound), period=0.001)
    wait_until_heard(graph, node, outputs, len(sound) - 512)
    assert not outputs['emotion']
    assert not outputs['utterance']


def test_life_cycle(graph, outputs, publisher):
    node = graph.make(EmotionNode, **PATIENT, autostart=False)
    success = TransitionCallbackReturn.SUCCESS
    for _ in range(2):
        assert node.trigger_configure() == success
        assert node.trigger_activate() == success
        publisher.wait_for_listener(node)
        publisher.announce()
        voiced = speech_then_silence()[: 2 * SAMPLE_RATE]
        publisher.play(encode_s16le(voiced), period=0.001)
        graph.wait(lambda: outputs['is_speaking'] and outputs['is_speaking'][-1].data, 'speech')
        assert node.trigger_deactivate() == success
        graph.wait(lambda: not outputs['is_speaking'][-1].data, 'false on deactivate')
        graph.wait(lambda: not publisher.audio.get_subscription_count(), 'no subscription')
        assert node.trigger_cleanup() == success
    assert node.trigger_shutdown() == success
    assert not [t for t in threading.enumerate() if t.name == 'emotion_node_worker']


def test_autostart_reaches_active(graph):
    graph.make(EmotionNode, device='cpu', namespace='robot')
    assert graph.state_of('/robot/emotion_node') == State.PRIMARY_STATE_ACTIVE


@pytest.mark.parametrize(
    ('parameters', 'said'),
    [
        ({'bundle': '/nowhere/model.safetensors'}, '/nowhere/model.safetensors'),
        ({'device': 'gpu'}, "'gpu'"),
        ({'sample_format': 'S20LE'}, 'S20LE'),
        ({'reliability': 'perfect'}, "'perfect'"),
        ({'min_utterance': 2.0}, 'min_utterance'),
        pytest.param(
            {'device': 'cuda'},
            'CUDA',
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU'),
        ),
    ],
)
def test_what_cannot_be_configured_is_said_in_one_line(graph, capfd, parameters, said):
    node = graph.make(EmotionNode, **parameters)
    assert node.failed
    errors = [line for line in capfd.readouterr().err.splitlines() if '[ERROR]' in line]
    assert len(errors) == 1
    assert said in errors[0]


def test_diagnostics_are_published(graph):
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    graph.make(EmotionNode, device='cpu', namespace='robot')
    graph.wait(lambda: heard and heard[-1].status[0].message == 'listening', 'diagnostics')
    status = heard[-1].status[0]
    assert status.name == 'robot/emotion_node'
    assert {'lost seconds', 'gaps', 'dropped blocks'} <= {value.key for value in status.values}
    assert status.level == DiagnosticStatus.OK


def test_the_diagnostics_say_what_a_robot_team_asks(graph, outputs, publisher):
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    node = graph.make(EmotionNode, **PATIENT)
    publisher.wait_for_listener(node)
    publisher.announce()
    samples = speech_then_silence()[: 4 * SAMPLE_RATE]
    publisher.play(encode_s16le(samples))
    wait_until_heard(graph, node, outputs, len(samples))
    n_before = len(heard)
    graph.wait(lambda: len(heard) > n_before, 'news')
    values = {pair.key: pair.value for pair in heard[-1].status[0].values}
    path = node._engine.bundle.path
    assert values['device'] == 'cpu'
    assert values['bundle'] == path.name
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(values['bundle sha256'])
    assert len(values['bundle sha256']) == 12
    assert 'S16LE' in values['format']
    assert -60 < float(values['level dB']) < 0
    assert float(values['blocks per second']) > 0
    assert float(values['windows per second']) > 0
    assert 0 < float(values['real-time factor']) < 1
    # Stamped years ago, as they are here.
    latencies = [float(values[f'latency {name} ms']) for name in ('p50', 'p95', 'max')]
    assert latencies == sorted(latencies)
    assert float(values['last decision age s']) < 60
    expressions = node._listener.streams[0].voice.expressions.expressions
    assert values['last decision'] in {*expressions, 'uncertain'}
    assert int(values['backlog bytes']) == 0
    assert float(values['memory MB']) > 50
    assert float(values['seconds']) == pytest.approx(4.0)
    causes = {
        *('empty blocks', 'cut blocks', 'refused blocks', 'dropped blocks', 'skipped blocks'),
        *('dropped seconds', 'skipped seconds', 'lost seconds', 'gaps', 'messages lost'),
        *('short utterances', 'broken utterances', 'skipped windows'),
    }
    assert {values[cause] for cause in causes} <= {'0', '0.0'}


def test_trouble_is_a_warning_in_the_diagnostics(graph, publisher):
    heard = graph.listen(DiagnosticArray, '/diagnostics')
    node = graph.make(EmotionNode, device='cpu')
    publisher.wait_for_listener(node)
    publisher.announce(coding='mp3')
    graph.wait(lambda: heard and 'mp3' in heard[-1].status[0].message, 'the refusal')
    assert heard[-1].status[0].level == DiagnosticStatus.WARN


def fail_once(node, error):
    """Make the model raise at its next window, as a GPU does."""

    def fail(module, arguments):
        hook.remove()
        raise error

    hook = node._engine.bundle.model.register_forward_pre_hook(fail)


def test_a_window_without_memory_is_skipped_and_counted(graph, outputs, publisher):
    node = graph.make(EmotionNode, **PATIENT)
    publisher.wait_for_listener(node)
    publisher.announce()
    fail_once(node, torch.OutOfMemoryError('CUDA out of memory'))
    samples = speech_then_silence()[: 6 * SAMPLE_RATE]
    publisher.play(encode_s16le(samples), period=0.001)
    wait_until_heard(graph, node, outputs, len(samples) - 512)
    assert counters(node)['skipped windows'] == 1
    windows = sum(e.is_window for e in direct(samples))
    assert len(outputs['probabilities']) == windows - 1
    assert not node.failed


def test_an_error_that_stays_ends_the_node_for_a_respawn(graph, publisher, capfd):
    node = graph.make(EmotionNode, **PATIENT)
    publisher.wait_for_listener(node)
    publisher.announce()
    fail_once(node, RuntimeError('CUDA error: an illegal memory access was encountered'))
    publisher.play(encode_s16le(speech_then_silence()), period=0.001)
    graph.wait(lambda: node.failed, 'giving up')
    fatal = [line for line in capfd.readouterr().err.splitlines() if '[FATAL]' in line]
    assert len(fatal) == 1
    assert 'illegal memory access' in fatal[0]


def test_a_bundle_that_does_not_run_on_a_stream_is_refused(graph, capfd, tmp_path, write_bundle):
    path = tmp_path / 'studio.safetensors'
    frontend = LogMelConfig(sample_rate=48_000, n_fft=1024, win_length=512, hop_length=256)
    write_bundle(path, frontend=frontend)
    broken = tmp_path / 'broken.safetensors'
    broken.write_bytes(path.read_bytes()[:1000])
    for bundle, said in ((path, '48000 Hz'), (broken, 'broken')):
        node = graph.make(EmotionNode, device='cpu', bundle=str(bundle))
        assert node.failed
        errors = [line for line in capfd.readouterr().err.splitlines() if '[ERROR]' in line]
        assert len(errors) == 1
        assert str(bundle) in errors[0]
        assert said in errors[0]


def test_simulated_time_is_followed(graph):
    node = graph.make(EmotionNode, device='cpu', use_sim_time=True)
    clock = graph.node.create_publisher(Clock, '/clock', 1)
    graph.wait(clock.get_subscription_count, 'discovery')
    clock.publish(Clock(clock=to_header(42 * SECOND, '').stamp))
    graph.wait(lambda: node.get_clock().now().nanoseconds == 42 * SECOND, 'the time of /clock')


def test_the_unexpected_is_an_error_with_a_traceback(graph, capfd):
    node = graph.make(EmotionNode, device='cpu', autostart=False)
    node.setup = lambda: 1 / 0
    assert node.trigger_configure() == TransitionCallbackReturn.ERROR
    assert 'ZeroDivisionError' in capfd.readouterr().err
    del node.setup
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_nobody_speaks_when_the_sound_stops(graph, outputs, publisher):
    """A publisher that dies in the middle of a word must not leave the robot waiting."""
    node = graph.make(EmotionNode, **PATIENT)
    publisher.wait_for_listener(node)
    publisher.announce()
    samples = speech_then_silence()[: 2 * SAMPLE_RATE]
    publisher.play(encode_s16le(samples), period=0.001)
    graph.wait(lambda: True in [m.data for m in outputs['is_speaking']], 'speech')
    graph.wait(lambda: not outputs['is_speaking'][-1].data, 'false without sound')


def test_a_stamp_of_zero_is_none(graph, outputs, publisher):
    node = graph.make(EmotionNode, **PATIENT)
    publisher.wait_for_listener(node)
    publisher.announce()
    data = encode_s16le(speech_then_silence()[: 6 * SAMPLE_RATE])
    for first in range(0, len(data), 640):
        publisher.block(data[first : first + 640], stamp_ns=0)
        time.sleep(0.001)
    wait_until_heard(graph, node, outputs, len(data) // 2 - 512)
    assert counters(node)['gaps'] == 0
    assert outputs['probabilities']
    assert to_nanoseconds(outputs['probabilities'][0].header.stamp) > START


def test_stamps_that_jump_are_warned_of(graph, publisher, capfd):
    node = graph.make(EmotionNode, device='cpu')
    publisher.wait_for_listener(node)
    publisher.announce()
    for n in range(10):
        publisher.block(bytes(640), START - n * 3600 * SECOND)
    graph.wait(lambda: counters(node)['gaps'] == 9, 'nine gaps')
    assert logged(graph, capfd, '9 times lately the stamps of the sound jumped')


def test_sound_that_is_missing_is_warned_of(graph, publisher, capfd):
    """A block here and there, which breaks no utterance."""
    node = graph.make(EmotionNode, device='cpu')
    publisher.wait_for_listener(node)
    publisher.announce()
    block_ns = 320 * SECOND // SAMPLE_RATE
    data = encode_s16le(np.full(320, 0.1))
    for n in (n for n in range(200) if n % 100 != 50):
        publisher.block(data, START + n * block_ns)
    graph.wait(lambda: counters(node)['samples'] == 198 * 320, 'the others')
    assert counters(node)['lost seconds'] == 0.04
    assert counters(node)['gaps'] == 0
    assert logged(graph, capfd, 'seconds of sound are missing lately')


def test_a_failed_start_leaves_nothing_behind(graph):
    node = graph.make(EmotionNode, device='cpu', autostart=False)
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    node.start = lambda: 1 / 0
    assert node.trigger_activate() == TransitionCallbackReturn.ERROR
    del node.start
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert node.count_publishers('emotion') == 1
