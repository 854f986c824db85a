"""The emotion node over the middleware: sound in, messages out."""

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
    LARGE_BACKLOG,
    START,
    AudioPublisher,
    as_text,
    assert_logs_only,
    probabilities_by_stamp,
    recognize,
    reported,
    speech_then_silence,
    wait_until_processed,
)
from hri_msgs.msg import Expression  # noqa: E402
from lifecycle_msgs.msg import State  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402

from ser_ros.audio import SAMPLE_RATE, SECOND  # noqa: E402
from ser_ros.audio.formats import encode_s16le  # noqa: E402
from ser_ros.bundle import load_bundle, save_bundle  # noqa: E402
from ser_ros.emotions import OTHERS  # noqa: E402
from ser_ros.frontend_config import LogMelConfig  # noqa: E402
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
def test_probabilities_do_not_depend_on_the_format(
    graph, outputs, publisher, held_out_clip, sample_format, rate, channels, block_frames
):
    samples = speech_then_silence(held_out_clip)
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    publisher.wait_for_subscriber(node)
    publisher.announce(sample_format, channels, rate)
    sent = samples if rate == SAMPLE_RATE else soxr.resample(samples, SAMPLE_RATE, rate)
    data = ENCODERS[sample_format.upper()](np.repeat(sent[:, None], channels, axis=1))
    frame_bytes = len(data) // len(sent)
    publisher.play(data, frame_bytes, rate, block_frames, period=0.001)
    wait_until_processed(graph, node, outputs, len(samples) - SAMPLE_RATE // 10)

    expected = {e.stamp_ns: e.probabilities for e in recognize(samples) if e.is_window}
    received = probabilities_by_stamp(outputs['probabilities'])
    assert received.keys() == expected.keys()
    for stamp, probabilities in expected.items():
        np.testing.assert_allclose(received[stamp], probabilities, atol=0.02)


def test_messages_do_not_depend_on_the_replay_speed(graph, outputs, publisher):
    # In the second run the voice would be known.
    node = graph.make(EmotionNode, **LARGE_BACKLOG, threshold=0.0, adaptation='off')
    publisher.wait_for_subscriber(node)
    publisher.announce()
    samples = speech_then_silence()[: 6 * SAMPLE_RATE]
    runs = []
    for n, period in enumerate((0.02, 0.002), start=1):
        for messages in outputs.values():
            messages.clear()
        # The second run has the same stamps: time jumps back, and a new stream starts.
        publisher.play(encode_s16le(samples), period=period)
        graph.wait(
            lambda n=n: (
                reported(node)['samples'] >= n * len(samples) and len(outputs['utterance']) == 1
            ),
            'the same utterance again',
            60,
        )
        n_windows = reported(node)['windows'] // n
        for topic in ('emotion', 'probabilities'):
            graph.wait(lambda: len(outputs[topic]) == n_windows, topic)  # noqa: B023
        graph.wait(
            lambda: len(outputs['is_speaking']) > 1 and not outputs['is_speaking'][-1].data,
            'the end of the utterance',
        )
        runs.append({name: as_text(messages) for name, messages in outputs.items()})
    assert runs[0]['probabilities']
    # The first run also received the transient local false that precedes it.
    runs[0]['is_speaking'] = runs[0]['is_speaking'][-2:]
    assert runs[0] == runs[1]
    assert reported(node)['dropped blocks'] == 0


def test_messages_equal_the_estimates_of_a_recognizer(graph, outputs, publisher):
    node = graph.make(EmotionNode, **LARGE_BACKLOG, threshold=0.0)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    samples = speech_then_silence()
    publisher.play(encode_s16le(samples), period=0.001)
    wait_until_processed(graph, node, outputs, len(samples) - 512)

    estimates = recognize(samples)
    finals = [e for e in estimates if e.is_final]
    assert len(outputs['utterance']) == len(finals) == reported(node)['utterances']
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
    # The depth is 1: at this speed, a message may be replaced by the next before it is sent.
    spoken = [message.data for message in outputs['is_speaking']]
    assert True in spoken
    assert spoken[0] is spoken[-1] is False


def test_of_uncertain_windows_only_probabilities_are_published(graph, outputs, publisher):
    node = graph.make(EmotionNode, **LARGE_BACKLOG, threshold=1.0)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    samples = speech_then_silence()[: 6 * SAMPLE_RATE]
    publisher.play(encode_s16le(samples), period=0.001)
    wait_until_processed(graph, node, outputs, len(samples) - 512)
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
    publisher.wait_for_subscriber(node)
    publisher.announce(**info)
    graph.wait(lambda: reported(node)['refused formats'], 'the refusal')
    for n in range(100):
        publisher.publish_block(b'\x01\x02' * 320, START + n * SECOND // 50)
    graph.wait(lambda: reported(node)['refused blocks'] == 100, '100 refused blocks')
    assert_logs_only(graph, capfd, 'sound refused')
    assert reported(node)['samples'] == 0
    publisher.announce()
    publisher.publish_block(bytes(640))
    graph.wait(lambda: reported(node)['samples'] == 320, 'blocks in a valid format after it')
    assert not outputs['probabilities']


def test_blocks_wait_until_their_format_is_known(graph, publisher, capfd):
    node = graph.make(EmotionNode, device='cpu')
    publisher.wait_for_subscriber(node)
    publisher.play(bytes(70 * 640), period=0.02)
    graph.wait(lambda: reported(node)['blocks'] == 70, 'blocks that wait')
    assert reported(node)['samples'] == 0
    # The warning comes when the first block has waited for a second.
    assert_logs_only(graph, capfd, 'no AudioInfo came on /audio_info')
    publisher.announce()
    graph.wait(lambda: reported(node)['samples'] == 70 * 320, 'all of them processed')


def test_the_format_can_be_set_by_parameter(graph, outputs):
    publisher = AudioPublisher(graph, AudioData)
    node = graph.make(
        EmotionNode, **LARGE_BACKLOG, stamped=False, audio_topic='audio', sample_format='S16LE'
    )
    publisher.wait_for_subscriber(node)
    before = time.time_ns()
    samples = speech_then_silence(seconds=6)
    publisher.play(encode_s16le(samples), period=0.001)
    wait_until_processed(graph, node, outputs, len(samples) - 512)
    stamps = list(probabilities_by_stamp(outputs['probabilities']))
    # The first block is stamped by its arrival, the rest by counting samples, at any speed.
    expected = [e.stamp_ns - START for e in recognize(samples) if e.is_window]
    assert np.diff(stamps).tolist() == np.diff(expected).tolist()
    assert before - SECOND < stamps[0] - expected[0] < time.time_ns()


def test_garbage_blocks_are_counted_and_harmless(graph, publisher):
    node = graph.make(EmotionNode, device='cpu')
    publisher.wait_for_subscriber(node)
    publisher.announce()
    publisher.publish_block(b'')
    publisher.publish_block(b'\x01')
    publisher.publish_block(b'\x01\x02\x03')
    graph.wait(lambda: reported(node)['cut blocks'] == 2, 'blocks that were cut')
    # Ten seconds in one block: more than may wait, but it does not wait.
    publisher.publish_block(bytes(320_000))
    graph.wait(lambda: reported(node)['samples'] == 160_001, 'the long block')
    publisher.publish_block(bytes(640), START + 60 * SECOND)
    graph.wait(lambda: reported(node)['samples'] == 160_321, 'a valid block after them')
    assert reported(node)['empty blocks'] == 1
    assert reported(node)['dropped blocks'] == 0


@pytest.mark.parametrize('name', ['silence', 'white noise', 'mains hum', 'melody'])
def test_noise_is_not_published_as_an_emotion(graph, outputs, publisher, not_speech, name):
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    sound = np.concatenate((not_speech[name], np.zeros(SAMPLE_RATE, np.float32)))
    publisher.play(encode_s16le(sound), period=0.001)
    wait_until_processed(graph, node, outputs, len(sound) - 512)
    assert not outputs['emotion']
    assert not outputs['utterance']


def test_life_cycle(graph, outputs, publisher):
    others = threading.enumerate()  # another test may have left a worker that hangs
    node = graph.make(EmotionNode, **LARGE_BACKLOG, autostart=False)
    success = TransitionCallbackReturn.SUCCESS
    for _ in range(2):
        assert graph.run(node.trigger_configure) == success
        assert graph.run(node.trigger_activate) == success
        publisher.wait_for_subscriber(node)
        publisher.announce()
        voiced = speech_then_silence()[: 2 * SAMPLE_RATE]
        publisher.play(encode_s16le(voiced), period=0.001)
        graph.wait(lambda: outputs['is_speaking'] and outputs['is_speaking'][-1].data, 'speech')
        assert graph.run(node.trigger_deactivate) == success
        graph.wait(lambda: not outputs['is_speaking'][-1].data, 'is_speaking to become false')
        graph.wait(
            lambda: not publisher.audio.get_subscription_count(), 'the end of the subscription'
        )
        assert graph.run(node.trigger_cleanup) == success
    assert graph.run(node.trigger_shutdown) == success
    left = [t for t in threading.enumerate() if t not in others]
    assert not [t for t in left if t.name == 'emotion_node_worker']


def test_autostart_reaches_active(graph):
    graph.make(EmotionNode, device='cpu', namespace='robot')
    assert graph.state_of('/robot/emotion_node') == State.PRIMARY_STATE_ACTIVE


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [
        ({'bundle': '/nowhere/model.safetensors'}, '/nowhere/model.safetensors'),
        ({'device': 'gpu'}, "'gpu'"),
        ({'sample_format': 'S20LE'}, 'S20LE'),
        ({'reliability': 'perfect'}, "'perfect'"),
        ({'min_utterance': 2.0}, 'min_utterance'),
        ({'adaptation': 'loud'}, "'loud', not one of voice, room, off"),
        pytest.param(
            {'device': 'cuda'},
            'CUDA',
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU'),
        ),
    ],
)
def test_an_invalid_configuration_is_reported_in_one_line(graph, capfd, parameters, message):
    node = graph.make(EmotionNode, **parameters)
    assert node.failed
    errors = [line for line in capfd.readouterr().err.splitlines() if '[ERROR]' in line]
    assert len(errors) == 1
    assert message in errors[0]


def test_diagnostics_are_published(graph):
    diagnostics = graph.subscribe(DiagnosticArray, '/diagnostics')
    graph.make(EmotionNode, device='cpu', namespace='robot')
    graph.wait(
        lambda: diagnostics and diagnostics[-1].status[0].message == 'listening', 'diagnostics'
    )
    status = diagnostics[-1].status[0]
    assert status.name == 'robot/emotion_node'
    assert {'lost seconds', 'gaps', 'dropped blocks'} <= {value.key for value in status.values}
    assert status.level == DiagnosticStatus.OK


def test_diagnostics_contain_what_a_robot_team_needs(graph, outputs, publisher):
    diagnostics = graph.subscribe(DiagnosticArray, '/diagnostics')
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    samples = speech_then_silence()[: 4 * SAMPLE_RATE]
    publisher.play(encode_s16le(samples))
    wait_until_processed(graph, node, outputs, len(samples))
    n_before = len(diagnostics)
    graph.wait(lambda: len(diagnostics) > n_before, 'newer diagnostics')
    values = {pair.key: pair.value for pair in diagnostics[-1].status[0].values}
    path = node._backend.path
    assert (values['backend'], values['device']) == (node._backend.name, 'cpu')
    assert values['bundle'] == path.name
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(values['bundle sha256'])
    assert len(values['bundle sha256']) == 12
    assert values['format'] == 'S16LE, mono, 16000 Hz'
    assert values['voices'] == '/audio_stamped'
    assert -60 < float(values['level dB']) < 0
    assert float(values['blocks per second']) > 0
    assert float(values['windows per second']) > 0
    assert 0 < float(values['real-time factor']) < 1
    # Not compared with limits: the stamps of this test are years old.
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


def test_a_refused_format_is_a_warning_in_the_diagnostics(graph, publisher):
    diagnostics = graph.subscribe(DiagnosticArray, '/diagnostics')
    node = graph.make(EmotionNode, device='cpu')
    publisher.wait_for_subscriber(node)
    publisher.announce(coding='mp3')
    graph.wait(lambda: diagnostics and 'mp3' in diagnostics[-1].status[0].message, 'the refusal')
    assert diagnostics[-1].status[0].level == DiagnosticStatus.WARN


def fail_once(node, error):
    """Make the model raise an error at its next window, as a GPU may."""

    def fail(module, arguments):
        hook.remove()
        raise error

    hook = node._backend.bundle.model.register_forward_pre_hook(fail)


def test_a_window_without_memory_is_skipped_and_counted(graph, outputs, publisher):
    node = graph.make(EmotionNode, backend='torch', **LARGE_BACKLOG)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    fail_once(node, torch.OutOfMemoryError('CUDA out of memory'))
    samples = speech_then_silence(seconds=6)
    publisher.play(encode_s16le(samples), period=0.001)
    wait_until_processed(graph, node, outputs, len(samples) - 512)
    assert reported(node)['skipped windows'] == 1
    windows = sum(e.is_window for e in recognize(samples))
    assert len(outputs['probabilities']) == windows - 1
    assert not node.failed


def test_a_device_error_ends_the_node_for_a_respawn(graph, publisher, capfd):
    node = graph.make(EmotionNode, backend='torch', **LARGE_BACKLOG)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    fail_once(node, RuntimeError('CUDA error: an illegal memory access was encountered'))
    publisher.play(encode_s16le(speech_then_silence()), period=0.001)
    graph.wait(lambda: node.failed, 'the end of the node')
    fatal = [line for line in capfd.readouterr().err.splitlines() if '[FATAL]' in line]
    assert len(fatal) == 1
    assert 'illegal memory access' in fatal[0]


def test_a_bundle_that_cannot_stream_is_refused(graph, capfd, tmp_path, write_bundle):
    path = tmp_path / 'studio.safetensors'
    frontend = LogMelConfig(sample_rate=48_000, n_fft=1024, win_length=512, hop_length=256)
    write_bundle(path, frontend=frontend)
    broken = tmp_path / 'broken.safetensors'
    broken.write_bytes(path.read_bytes()[:1000])
    for bundle, message in ((path, '48000 Hz'), (broken, 'broken')):
        node = graph.make(EmotionNode, device='cpu', bundle=str(bundle))
        assert node.failed
        errors = [line for line in capfd.readouterr().err.splitlines() if '[ERROR]' in line]
        assert len(errors) == 1
        assert str(bundle) in errors[0]
        assert message in errors[0]


def test_simulated_time_is_used(graph):
    node = graph.make(EmotionNode, device='cpu', use_sim_time=True)
    clock = graph.node.create_publisher(Clock, '/clock', 1)
    graph.wait_for_subscriber(clock)
    clock.publish(Clock(clock=to_header(42 * SECOND, '').stamp))
    graph.wait(lambda: node.get_clock().now().nanoseconds == 42 * SECOND, 'the time of /clock')


def test_an_unexpected_error_is_logged_with_a_traceback(graph, capfd):
    node = graph.make(EmotionNode, device='cpu', autostart=False)
    node.setup = lambda: 1 / 0
    assert graph.run(node.trigger_configure) == TransitionCallbackReturn.ERROR
    assert 'ZeroDivisionError' in capfd.readouterr().err
    del node.setup
    assert graph.run(node.trigger_configure) == TransitionCallbackReturn.SUCCESS


def test_is_speaking_becomes_false_when_the_sound_stops(graph, outputs, publisher):
    """A robot must not wait for ever for a publisher that died in the middle of a word."""
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    samples = speech_then_silence()[: 2 * SAMPLE_RATE]
    publisher.play(encode_s16le(samples), period=0.001)
    graph.wait(lambda: True in [m.data for m in outputs['is_speaking']], 'speech')
    graph.wait(lambda: not outputs['is_speaking'][-1].data, 'is_speaking to become false')


def test_a_stamp_of_zero_counts_as_missing(graph, outputs, publisher):
    node = graph.make(EmotionNode, **LARGE_BACKLOG)
    publisher.wait_for_subscriber(node)
    publisher.announce()
    data = encode_s16le(speech_then_silence()[: 6 * SAMPLE_RATE])
    for first in range(0, len(data), 640):
        publisher.publish_block(data[first : first + 640], stamp_ns=0)
        time.sleep(0.001)
    wait_until_processed(graph, node, outputs, len(data) // 2 - 512)
    assert reported(node)['gaps'] == 0
    assert outputs['probabilities']
    assert to_nanoseconds(outputs['probabilities'][0].header.stamp) > START


def test_jumping_stamps_are_a_warning(graph, publisher, capfd):
    node = graph.make(EmotionNode, device='cpu')
    publisher.wait_for_subscriber(node)
    publisher.announce()
    for n in range(10):
        publisher.publish_block(bytes(640), START - n * 3600 * SECOND)
    graph.wait(lambda: reported(node)['gaps'] == 9, 'nine gaps')
    assert_logs_only(graph, capfd, '9 times lately the stamps of the sound jumped')


def test_missing_sound_is_a_warning(graph, publisher, capfd):
    """Only single blocks are missing, so that no utterance is broken."""
    node = graph.make(EmotionNode, device='cpu')
    publisher.wait_for_subscriber(node)
    publisher.announce()
    block_ns = 320 * SECOND // SAMPLE_RATE
    data = encode_s16le(np.full(320, 0.1))
    for n in (n for n in range(200) if n % 100 != 50):
        publisher.publish_block(data, START + n * block_ns)
    graph.wait(lambda: reported(node)['samples'] == 198 * 320, 'the other blocks')
    assert reported(node)['lost seconds'] == 0.04
    assert reported(node)['gaps'] == 0
    assert_logs_only(graph, capfd, 'seconds of sound are missing lately')


def test_a_failed_start_leaves_nothing_behind(graph):
    node = graph.make(EmotionNode, device='cpu', autostart=False)
    assert graph.run(node.trigger_configure) == TransitionCallbackReturn.SUCCESS
    node.start = lambda: 1 / 0
    assert graph.run(node.trigger_activate) == TransitionCallbackReturn.ERROR
    del node.start
    assert graph.run(node.trigger_configure) == TransitionCallbackReturn.SUCCESS
    assert graph.run(node.trigger_activate) == TransitionCallbackReturn.SUCCESS
    assert node.count_publishers('emotion') == 1


def test_a_class_of_ones_own_is_published(graph, outputs, publisher, tmp_path, write_bundle):
    names, own = ('neutral', 'dull'), {'dull': OTHERS['bored']}
    path = tmp_path / 'own.safetensors'
    write_bundle(path, class_names=names, classes=own, threshold=0.0)
    bundle = load_bundle(path)
    with torch.no_grad():
        bundle.model.classifier.bias[1] += 50
    save_bundle(path, bundle.info, bundle.frontend, bundle.model)
    node = graph.make(EmotionNode, **LARGE_BACKLOG, bundle=str(path))
    publisher.wait_for_subscriber(node)
    publisher.announce()
    samples = speech_then_silence()
    publisher.play(encode_s16le(samples), period=0.001)
    wait_until_processed(graph, node, outputs, len(samples) - 512)
    assert {m.expression for m in outputs['utterance']} == {Expression.BORED}
    assert outputs['utterance'][0].valence == pytest.approx(-0.65, abs=0.01)
    assert [r.class_id for r in outputs['probabilities'][0].results] == list(names)
    assert str(reported(node)['last decision']).startswith('bored')
