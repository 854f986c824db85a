"""Hours of speech through the real nodes: memory may not grow, and lost sound must be counted.

    python tools/soak.py [--minutes 60] [--speed TIMES]

Exit status 0 if memory grows by less than 5 MB after the warm-up, all sound that was sent was
processed or counted as lost with its cause, and less than a thousandth of it was lost.
"""

import argparse
import contextlib
import statistics
import sys
import time

import torch
from diagnostic_msgs.msg import DiagnosticStatus
from hri_msgs.msg import Expression
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rig import ROOT, Rig, exit_on_sigterm, print_table
from tqdm import tqdm

from ser_ros.audio import SAMPLE_RATE
from ser_ros.audio.sources import read_audio
from ser_ros.bundle import load_bundle
from ser_ros.stream.recognizer import Recognizer

SPEECH = ROOT / 'examples' / 'speech.flac'
GROWTH = 5.0
"""Megabytes by which the memory of a node may grow after the warm-up."""
LOSS = 1e-3
"""Share of the sound that may be lost, even if it is counted."""
BACKLOG = 5.0
"""Seconds for which the emotion node may stop processing: `max_backlog` at real time."""
MAX_SPEED, SHARE = 10.0, 0.4
"""Of real time; and the share of the time that recognition may take, which leaves some to others."""
WARM_UP = 0.2
"""Share of the time in which caches of the middleware and of torch may still grow."""
NODES = ('audio_capture_node', 'emotion_node')


def main() -> int:
    """Run the soak test; return the exit status."""
    parser = argparse.ArgumentParser(prog='make soak', description=__doc__.split('\n')[0])
    parser.add_argument('--minutes', type=float, default=60.0, help='of speech (default 60)')
    parser.add_argument(
        '--speed', type=float, help='times real time (default: 10, or what this machine can do)'
    )
    parser.add_argument('--domain-id', type=int, help='ROS domain to use (default: a random one)')
    options = parser.parse_args()
    exit_on_sigterm()
    speed = options.speed or _possible_speed()
    print(
        f'soak: {options.minutes:g} minutes of speech at {speed:.1f} times real time', flush=True
    )
    try:
        with contextlib.closing(Rig(options.domain_id)) as rig:
            return _soak(rig, options.minutes * 60 / speed, speed)
    except KeyboardInterrupt:
        return 130


def _possible_speed() -> float:
    """The speed at which the model takes `SHARE` of the time on this machine, as busy as it is."""
    samples = read_audio(SPEECH)
    recognizer = Recognizer(load_bundle(), 'cpu')
    torch.set_num_threads(1)
    start = time.monotonic()
    recognizer.push(samples, 0)
    factor = (time.monotonic() - start) * SAMPLE_RATE / len(samples)
    return max(1.0, min(MAX_SPEED, SHARE / factor))


def _soak(rig: Rig, seconds: float, speed: float) -> int:
    n_utterances = [0]

    def count(_: Expression) -> None:
        n_utterances[0] += 1

    rig.subscribe(Expression, 'emotion/utterance', count)
    rig.start('emotion_node', {'threshold': 0.0, 'max_backlog': BACKLOG * speed})
    rig.start(
        'audio_capture_node',
        {
            **{'source': 'file', 'file': SPEECH, 'loop': True, 'speed': speed},
            'block_duration': 0.1,
        },
    )
    if rig.wait(lambda: n_utterances[0], 60) is None:
        print('soak: no utterance was recognised within a minute', file=sys.stderr)
        return 1
    memory: dict[str, list[float]] = {name: [] for name in NODES}
    start = time.monotonic()
    with tqdm(total=round(seconds), unit='s', desc='soaking', leave=False) as bar:
        while (elapsed := time.monotonic() - start) < seconds:
            if ended := rig.ended():
                print(f'soak: {", ".join(ended)} ended by itself', file=sys.stderr)
                return 1
            if elapsed > WARM_UP * seconds:
                for name in NODES:
                    memory[name].append(rig.memory(name))
            bar.update(round(elapsed) - bar.n)
            time.sleep(min(1.0, seconds / 20))
    capture_values, emotion_values = _stop(rig)
    return _report(capture_values, emotion_values, memory, n_utterances[0])


def _stop(rig: Rig) -> tuple[dict[str, str], dict[str, str]]:
    """End the capture, and wait until all its sound is processed; the values of both nodes."""
    client = rig.node.create_client(ChangeState, 'audio_capture_node/change_state')
    client.wait_for_service(10.0)
    transition = Transition(id=Transition.TRANSITION_DEACTIVATE)
    requested_at = time.monotonic()
    client.call_async(ChangeState.Request(transition=transition))
    rig.wait(
        lambda: (
            (status := rig.status('audio_capture_node', newer_than=requested_at))
            and status.message == 'not active'
        ),
        20,
    )
    # The emotion node reports STALE when it has processed all sound and no more arrives.
    rig.wait(lambda: rig.status('emotion_node').level == DiagnosticStatus.STALE, 60)
    return rig.values('audio_capture_node'), rig.values('emotion_node')


def _report(
    capture_values: dict[str, str],
    emotion_values: dict[str, str],
    memory: dict[str, list[float]],
    n_utterances: int,
) -> int:
    """Print the tables and check the limits; return the exit status."""
    sent = float(capture_values['seconds'])
    lost = {
        'lost on the way, by the stamps': float(emotion_values['lost seconds']),
        'dropped: more than max_backlog waited': float(emotion_values['dropped seconds']),
        'skipped: switched off or muted': float(emotion_values['skipped seconds']),
    }
    processed = int(emotion_values['samples']) / SAMPLE_RATE
    unexplained = sent - processed - sum(lost.values())
    print_table(
        ('sound', 'seconds', 'share'),
        [
            (name, f'{seconds:.3f}', f'{seconds / sent:.4%}')
            for name, seconds in (
                ('sent', sent),
                ('processed', processed),
                *lost.items(),
                ('unexplained', unexplained),
            )
        ],
    )
    others = ('messages lost', 'gaps', 'skipped windows')
    print(', '.join(f'{name} {emotion_values[name]}' for name in others))
    print(f'utterances: {n_utterances}; real-time factor {emotion_values["real-time factor"]}')
    growth = {name: _growth(values) for name, values in memory.items()}
    print_table(
        ('node', 'MB after the warm-up', 'MB at the end', 'growth'),
        [
            (name, f'{values[0]:.1f}', f'{values[-1]:.1f}', f'{growth[name]:+.1f}')
            for name, values in memory.items()
        ],
    )
    problems = [f'{name} grew by {growth[name]:.1f} MB' for name in NODES if growth[name] > GROWTH]
    if abs(unexplained) > 0.01:
        problems.append(f'{unexplained:.3f} s are unexplained')
    if sum(lost.values()) > LOSS * sent:
        problems.append(f'{sum(lost.values()):.3f} s were lost')
    for problem in problems:
        print(f'soak: {problem}', file=sys.stderr)
    print('soak: passed' if not problems else 'soak: failed')
    return int(bool(problems))


def _growth(values: list[float]) -> float:
    """From the median of the first tenth to that of the last: buffers of a moment are no leak."""
    n = max(1, len(values) // 10)
    return statistics.median(values[-n:]) - statistics.median(values[:n])


if __name__ == '__main__':
    sys.exit(main())
