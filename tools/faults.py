"""Kill nodes, unplug the microphone, swap bundles, send garbage: emotions must come again.

    python tools/faults.py [--fuzz 10000] [--seed 1] [--recovery 5]

Plays one utterance in a loop into a virtual microphone and runs the nodes on it, together with a
behaviour node. Exit status 0 if the expected emotion is received again within `--recovery` seconds after
each fault, and no process ended that was not killed.
"""

import argparse
import array
import contextlib
import dataclasses
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import numpy as np
import soundfile
from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo
from diagnostic_msgs.msg import DiagnosticStatus
from hri_msgs.msg import Expression
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rig import ROOT, Rig, exit_on_sigterm, print_table
from std_msgs.msg import Bool, Header
from std_srvs.srv import SetBool, Trigger
from virtual_microphone import VirtualMicrophone, missing_packages

from ser_ros.audio import SAMPLE_RATE, SECOND
from ser_ros.audio.formats import encode_s16le
from ser_ros.audio.sources import read_audio
from ser_ros.audio.vad import CHUNK, Segmenter, SileroVad
from ser_ros.bundle import load_bundle, save_bundle
from ser_ros.nodes.messages import TRANSIENT_LOCAL, to_header
from ser_ros.stream.recognizer import Recognizer
from ser_ros.stream.types import StreamConfig

PATIENCE = 60.0
"""Seconds to wait for a process or an emotion, on a slow machine, too."""
PAUSE = 3 * SAMPLE_RATE // 4
"""Samples of silence between two utterances: enough to end the first one."""
NEAR = 0.15
"""Accepted difference in confidence. It depends a little on where the utterance begins within
a chunk of voice activity."""
BEHAVIOUR = ROOT / 'examples' / 'react_to_mood.py'


class NotInjectedError(Exception):
    """A fault could not be injected, or a node did not react to it as required."""


def require(condition: Any, what: str) -> None:
    """Raise NotInjectedError unless the condition holds."""
    if not condition:
        raise NotInjectedError(f'not fulfilled: {what}')


class Robot:
    """The nodes under test, and the emotion that they should publish."""

    def __init__(
        self, folder: Path, rig: Rig, microphone: VirtualMicrophone, fuzz: int, seed: int
    ):
        self.folder, self.rig, self.microphone = folder, rig, microphone
        self.fuzz, self.seed = fuzz, seed
        self.sound = folder / 'utterance.wav'
        self.expected = _make_sound(self.sound)
        self._utterances: list[tuple[float, Expression]] = []
        self.fault_end = 0.0
        """When the last fault ended, by the monotonic clock."""
        self.rig.subscribe(Expression, 'emotion/utterance', self._receive)
        self.rig.start('behaviour', command=[sys.executable, BEHAVIOUR])
        self.start_emotion_node()
        self.start_capture_node()
        self.microphone.play_in_a_loop(self.sound)

    def _receive(self, message: Expression) -> None:
        self._utterances.append((time.monotonic(), message))

    def start_emotion_node(self) -> None:
        """Start it as the launch file does; without adaptation each utterance has one answer."""
        parameters = {'threshold': 0.0, 'device': 'cpu', 'adaptation': 'off'}
        self.rig.start('emotion_node', parameters)

    def start_capture_node(self, **parameters: Any) -> None:
        """Start it as the launch file does, by default with the virtual microphone."""
        self.rig.start(
            'audio_capture_node',
            parameters or {'microphone': 'pulse', 'sample_rate': SAMPLE_RATE},
            environment=self.microphone.environment,
        )

    def recognized_after(self, instant: float) -> Optional[float]:
        """Seconds from `instant` to the expected emotion; None while it was not received."""
        return next(
            (
                received_at - instant
                for received_at, message in self._utterances
                if received_at > instant
                and message.expression == self.expected.expression
                and abs(message.confidence - self.expected.confidence) < NEAR
            ),
            None,
        )

    def has_received_since(self, instant: float) -> bool:
        """Whether any emotion was received after `instant`."""
        return any(received_at > instant for received_at, _ in self._utterances)

    def await_status(self, name: str, message: str, timeout: float) -> float:
        """Seconds until a new status of the node contains the message."""
        since = time.monotonic()
        seconds = self.rig.wait(
            lambda: (s := self.rig.status(name, since)) and message in s.message, timeout
        )
        require(seconds is not None, f'{name} reports {message!r}')
        return seconds


def _make_sound(path: Path) -> Any:
    """Write a short utterance and a pause; returns the final estimate of a `Recognizer`."""
    samples = read_audio(ROOT / 'examples' / 'speech.flac')
    vad, segmenter, found = SileroVad(), Segmenter(0.5, SAMPLE_RATE // 2), []
    for first in range(0, len(samples) - CHUNK + 1, CHUNK):
        found += (
            [segment] if (segment := segmenter.push(vad(samples[first : first + CHUNK]))) else []
        )
    spoken = min(found, key=lambda s: s.end - s.start)
    margin = SAMPLE_RATE // 8
    utterance = samples[max(0, spoken.start - margin) : spoken.end]
    sound = np.concatenate((utterance[: 5 * SAMPLE_RATE // 4], np.zeros(PAUSE, np.float32)))
    soundfile.write(path, sound, SAMPLE_RATE, subtype='PCM_16')
    bundle = load_bundle()
    bundle = dataclasses.replace(bundle, info=dataclasses.replace(bundle.info, threshold=0.0))
    recognizer = Recognizer(bundle, 'cpu', StreamConfig(adaptation='off'))
    silence = np.zeros(SAMPLE_RATE, np.float32)
    estimates = recognizer.push(np.concatenate((silence, read_audio(path))), 0)
    (final,) = (estimate for estimate in estimates if estimate.is_final)
    return final


# Each of these functions injects a fault, ends it, and returns what was done.


def kill_the_emotion_node(robot: Robot) -> str:
    """End it as a crash does, and start it again as the launch file does."""
    robot.rig.kill('emotion_node')
    robot.start_emotion_node()
    seconds = robot.await_status('emotion_node', 'listening', PATIENCE)
    return f'SIGKILL, listening again after {seconds:.1f} s'


def kill_the_capture_node(robot: Robot) -> str:
    """End it as a crash does, and start it again as the launch file does."""
    robot.rig.kill('audio_capture_node')
    robot.start_capture_node()
    seconds = robot.await_status('audio_capture_node', 'capturing', PATIENCE)
    return f'SIGKILL, capturing again after {seconds:.1f} s'


def pull_the_microphone(robot: Robot) -> str:
    """Unplug it until the node reports that, and plug it in again."""
    robot.microphone.unplug()
    try:
        seconds = robot.await_status('audio_capture_node', 'is gone', 10)
    finally:
        robot.microphone.plug()
    return f'its sink and source removed, an ERROR after {seconds:.1f} s, created again'


def stop_the_sound_server(robot: Robot) -> str:
    """Make PortAudio hang: the node ends itself, and is started again as by the launch file."""
    robot.microphone.server.send_signal(signal.SIGSTOP)
    process = robot.rig.processes.pop('audio_capture_node')
    try:
        status = process.wait(30)
    finally:
        robot.microphone.server.send_signal(signal.SIGCONT)
    require(status == 1, f'an end with status 1, not {status}')
    robot.start_capture_node()
    robot.await_status('audio_capture_node', 'capturing', PATIENCE)
    return 'SIGSTOP; the node ended with status 1 and was started again'


HANGING_NODE = """
import signal, sys, threading
from ser_ros.nodes import emotion_node, process

hangs = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: hangs.set())

class HangingNode(emotion_node.EmotionNode):
    def start(self):
        super().start()
        score = self._backend.score
        self._backend.score = (
            lambda windows: threading.Event().wait() if hangs.is_set() else score(windows)
        )

sys.exit(process.run(HangingNode))
"""
"""The emotion node, whose model never returns after SIGUSR1."""


def let_the_worker_hang(robot: Robot) -> str:
    """Let the model never return: the node ends itself, and is started again as by the launch file."""
    robot.rig.kill('emotion_node')
    command = [sys.executable, '-c', HANGING_NODE]
    robot.rig.start('emotion_node', {'threshold': 0.0, 'device': 'cpu'}, command)
    robot.await_status('emotion_node', 'listening', PATIENCE)
    process = robot.rig.processes.pop('emotion_node')
    process.send_signal(signal.SIGUSR1)
    start = time.monotonic()
    status = process.wait(30)
    require(status == 1, f'an end with status 1, not {status}')
    seconds = time.monotonic() - start
    robot.start_emotion_node()
    robot.await_status('emotion_node', 'listening', PATIENCE)
    return f'its model never returned; it ended with status 1 after {seconds:.1f} s, started again'


def channels_that_differ(robot: Robot) -> str:
    """Capture an array with the utterance and what the robot plays, until one channel is chosen."""
    utterance = read_audio(robot.sound)
    played = np.roll(utterance[::-1], len(utterance) // 2)
    path = robot.folder / 'array.wav'
    channels = (utterance, 0.5 * utterance, played)
    soundfile.write(path, np.stack(channels, axis=1), SAMPLE_RATE, subtype='PCM_16')
    robot.rig.kill('audio_capture_node')
    robot.start_capture_node(source='file', file=path, loop=True)
    seconds = robot.await_status('emotion_node', 'the parameter channel', PATIENCE)
    _set(robot, 'emotion_node', channel=0)
    since = time.monotonic()
    robot.rig.wait(lambda: robot.recognized_after(since), PATIENCE)
    require(robot.recognized_after(since), 'the expected emotion from the chosen channel')
    robot.rig.kill('audio_capture_node')
    _set(robot, 'emotion_node', channel=-1)
    robot.start_capture_node()
    robot.await_status('audio_capture_node', 'capturing', PATIENCE)
    return f'a WARN after {seconds:.1f} s; the channel with the voice was recognised when chosen'


def swap_the_bundle(robot: Robot) -> str:
    """Load a broken bundle, then another file with the same model."""
    bundle = load_bundle()
    other, broken = robot.folder / 'other.safetensors', robot.folder / 'broken.safetensors'
    save_bundle(other, bundle.info, bundle.frontend, bundle.model, bundle.programs)
    broken.write_bytes(other.read_bytes()[:1_000])
    for path, is_accepted in ((broken, False), (other, True)):
        _set(robot, 'emotion_node', bundle=str(path))
        answer = _call(robot, Trigger, 'emotion_node/reload_bundle', Trigger.Request())
        require(answer.success == is_accepted, f'{path.name}: {answer.message}')
    robot.rig.wait(lambda: robot.rig.values('emotion_node')['bundle'] == other.name, 5)
    require(robot.rig.values('emotion_node')['bundle'] == other.name, 'use of the other bundle')
    return 'a broken bundle, which was refused; another one, which was loaded'


def flood_with_garbage(robot: Robot) -> str:
    """Publish AudioData and AudioInfo of random bytes, formats and stamps on the nodes' topics."""
    rng = random.Random(robot.seed)
    node = robot.rig.node
    info = node.create_publisher(AudioInfo, 'audio_info', 100)
    audio = node.create_publisher(AudioDataStamped, 'audio_stamped', 1_000)
    robot.rig.wait(audio.get_subscription_count, 10)
    n_before = int(robot.rig.values('emotion_node')['blocks'])
    for number in range(robot.fuzz):
        if number % 4 == 0:
            info.publish(_garbage_info(rng))
        else:
            stamp = Header(frame_id=rng.choice(('', 'mic', 'x' * 500)))
            stamp.stamp.sec = rng.choice((-(2**31), -1, 0, 1, 2**31 - 1, rng.randrange(2**31)))
            stamp.stamp.nanosec = rng.choice((0, 999_999_999, 2**32 - 1))
            data = array.array('B', rng.randbytes(rng.choice((0, 1, 3, 640, 641, 20_000))))
            audio.publish(AudioDataStamped(header=stamp, audio=AudioData(data=data)))
        if number % 50 == 0:  # what the middleware itself drops is no garbage for the node
            time.sleep(0.05)
    robot.fault_end = time.monotonic()
    robot.rig.destroy(info)
    robot.rig.destroy(audio)
    robot.rig.wait(lambda: robot.rig.status('emotion_node', robot.fault_end), 5)
    n_received = int(robot.rig.values('emotion_node')['blocks']) - n_before
    require(n_received > robot.fuzz / 2, f'{robot.fuzz // 2} blocks received, not {n_received}')
    return f'{robot.fuzz} messages, a quarter AudioInfo, seed {robot.seed}'


def _garbage_info(rng: random.Random) -> AudioInfo:
    """A valid format half of the time, so that garbage is decoded; else random values."""
    if rng.random() < 0.5:
        return AudioInfo(
            channels=rng.randrange(1, 9),
            sample_rate=rng.choice((8_000, 16_000, 44_100, 48_000)),
            sample_format=rng.choice(('S16LE', 'S24LE', 'S32LE', 'F32LE', 'F64LE', 'U8')),
            coding_format='wave',
        )
    formats = ('', 'S16LE', 'S12LE', 'f32le', 'MP3', '\u00fc' * 40, 'S16LE\x00')
    return AudioInfo(
        channels=rng.randrange(256),
        sample_rate=rng.choice((0, 1, 16_000, 2**32 - 1)),
        sample_format=rng.choice(formats),
        bitrate=rng.randrange(2**32),
        coding_format=rng.choice(('', 'wave', 'mp3', 'x' * 1_000)),
    )


def mute_and_disable(robot: Robot) -> str:
    """Mute the node as by the robot's speech, then disable it, and enable it again."""
    speaking = robot.rig.node.create_publisher(Bool, 'robot_speaking', TRANSIENT_LOCAL)
    speaking.publish(Bool(data=True))
    robot.await_status('emotion_node', 'muted', 5)
    since = time.monotonic()
    enable = 'emotion_node/enable'
    _call(robot, SetBool, enable, SetBool.Request(data=False))
    speaking.publish(Bool(data=False))
    robot.await_status('emotion_node', 'switched off', 5)
    seconds = robot.rig.wait(lambda: robot.has_received_since(since), 3)
    require(seconds is None, 'no emotion while muted or disabled')
    _call(robot, SetBool, enable, SetBool.Request(data=True))
    robot.rig.destroy(speaking)
    return 'robot_speaking, then ~/enable false: no emotion was published for three seconds'


def restart_by_the_life_cycle(robot: Robot) -> str:
    """Deactivate, clean up, configure and activate both nodes."""
    for name in ('emotion_node', 'audio_capture_node'):
        for transition in (
            Transition.TRANSITION_DEACTIVATE,
            Transition.TRANSITION_CLEANUP,
            Transition.TRANSITION_CONFIGURE,
            Transition.TRANSITION_ACTIVATE,
        ):
            _change_state(robot, name, transition)
    return 'deactivate, cleanup, configure, activate'


def gate_the_voice(robot: Robot) -> str:
    """Instead of the microphone's sound publish the utterance alone, as a gated driver does."""
    _change_state(robot, 'audio_capture_node', Transition.TRANSITION_DEACTIVATE)
    samples = read_audio(robot.sound)[:-PAUSE]
    audio = robot.rig.node.create_publisher(AudioDataStamped, 'audio_stamped', 1_000)
    robot.rig.wait(audio.get_subscription_count, 10)
    waited = []
    for _ in range(2):
        time.sleep(2.0)  # nothing comes, and what the microphone brought is decided
        _speak(audio, samples)
        end = time.monotonic()
        robot.rig.wait(lambda: robot.recognized_after(end), 5)  # noqa: B023
        waited.append(robot.recognized_after(end))
        require(waited[-1] is not None, 'a decision though no silence follows')
    robot.rig.destroy(audio)
    _change_state(robot, 'audio_capture_node', Transition.TRANSITION_ACTIVATE)
    return f'no sound but two utterances, each decided {max(waited):.1f} s after its last block'


def _speak(audio: Any, samples: np.ndarray) -> None:
    """Publish samples in real time, in blocks of 20 ms with their stamps."""
    n, start, start_ns = SAMPLE_RATE // 50, time.monotonic(), time.time_ns()
    for i in range(-(-len(samples) // n)):
        time.sleep(max(0.0, start + (i + 1) / 50 - time.monotonic()))
        data = array.array('B', encode_s16le(samples[i * n : (i + 1) * n]))
        header = to_header(start_ns + i * SECOND // 50, 'gated')
        audio.publish(AudioDataStamped(header=header, audio=AudioData(data=data)))


def let_simulated_time_stand_still(robot: Robot) -> str:
    """Have the node use a /clock that never comes, and the robot speak once in that time."""
    _set(robot, 'emotion_node', use_sim_time=True)
    seconds = robot.await_status('emotion_node', '/clock', 10)
    speaking = robot.rig.node.create_publisher(Bool, 'robot_speaking', TRANSIENT_LOCAL)
    robot.rig.wait(speaking.get_subscription_count, 10)
    speaking.publish(Bool(data=True))
    time.sleep(2.0)
    since = time.monotonic()
    speaking.publish(Bool(data=False))
    robot.rig.wait(lambda: robot.recognized_after(since), PATIENCE)
    require(robot.recognized_after(since) is not None, 'an emotion after the robot has spoken')
    require(
        robot.rig.status('emotion_node').level == DiagnosticStatus.WARN, 'a warning all the time'
    )
    _set(robot, 'emotion_node', use_sim_time=False)
    robot.rig.destroy(speaking)
    return f'use_sim_time without /clock, a WARN after {seconds:.1f} s; the robot spoke once'


FAULTS: tuple[Callable[[Robot], str], ...] = (
    kill_the_emotion_node,
    kill_the_capture_node,
    pull_the_microphone,
    stop_the_sound_server,
    let_the_worker_hang,
    channels_that_differ,
    swap_the_bundle,
    flood_with_garbage,
    mute_and_disable,
    restart_by_the_life_cycle,
    gate_the_voice,
    let_simulated_time_stand_still,
)


def _call(robot: Robot, service_type: type, name: str, request: Any) -> Any:
    client = robot.rig.node.create_client(service_type, name)
    client.wait_for_service(10.0)
    answer = client.call_async(request)
    require(robot.rig.wait(answer.done, 30) is not None, f'an answer of {name}')
    robot.rig.node.destroy_client(client)
    return answer.result()


def _change_state(robot: Robot, name: str, transition: int) -> None:
    request = ChangeState.Request(transition=Transition(id=transition))
    answer = _call(robot, ChangeState, f'{name}/change_state', request)
    require(answer.success, f'transition {transition} of {name}')


def _set(robot: Robot, name: str, **values: Any) -> None:
    parameters = [Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
    request = SetParameters.Request(parameters=parameters)
    _call(robot, SetParameters, f'{name}/set_parameters', request)


def main() -> int:
    """Inject all faults; return the exit status."""
    parser = argparse.ArgumentParser(prog='make faults', description=__doc__.split('\n')[0])
    parser.add_argument('--fuzz', type=int, default=10_000, help='garbage messages')
    parser.add_argument('--seed', type=int, default=1, help='of the garbage')
    parser.add_argument(
        '--recovery',
        type=float,
        default=5.0,
        help='seconds after a fault within which the expected emotion has to be received again '
        '(default 5)',
    )
    parser.add_argument('--domain-id', type=int, help='ROS domain to use (default: a random one)')
    options = parser.parse_args()
    if missing := missing_packages():
        print(f'faults: needs apt install {" ".join(missing)}', file=sys.stderr)
        return 1
    exit_on_sigterm()
    try:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            microphone = stack.enter_context(contextlib.closing(VirtualMicrophone(folder)))
            rig = stack.enter_context(contextlib.closing(Rig(options.domain_id)))
            robot = Robot(folder, rig, microphone, options.fuzz, options.seed)
            return _run(robot, options.recovery)
    except KeyboardInterrupt:
        return 130


def _run(robot: Robot, recovery: float) -> int:
    if robot.rig.wait(lambda: robot.recognized_after(0.0), PATIENCE) is None:
        print('faults: the utterance was not recognised before any fault', file=sys.stderr)
        return 1
    rows, failed = [], False
    for fault in FAULTS:
        robot.fault_end, has_passed = 0.0, True
        try:
            done = fault(robot)
        except NotInjectedError as error:
            done, has_passed = str(error), False
        robot.fault_end = robot.fault_end or time.monotonic()
        robot.rig.wait(lambda: robot.recognized_after(robot.fault_end), PATIENCE)
        seconds, ended = robot.recognized_after(robot.fault_end), robot.rig.ended()
        has_passed &= seconds is not None and seconds <= recovery and not ended
        failed |= not has_passed
        result = (
            f'{robot.expected.expression} after {seconds:.1f} s' if seconds else 'not received'
        )
        rows.append(
            (
                fault.__name__.replace('_', ' '),
                done,
                result,
                ', '.join(ended) or 'none',
                'yes' if has_passed else 'NO',
            )
        )
        print(f'{rows[-1][0]}: {result}', file=sys.stderr, flush=True)
    print_table(('fault', 'injected', 'expected emotion', 'processes that ended', 'passed'), rows)
    print('faults: failed' if failed else 'faults: passed')
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
