"""Print emotions as they are published: a small behaviour node, and the third process of the demo.

    python examples/print_emotions.py [--until-end-of-file] [--ros-args -r __ns:=/robot]

With --until-end-of-file times are those of the file that a capture node plays, it ends when that has
been processed, and its exit status is 1 if no speech was detected. At the end there is a summary.
"""

import os
import sys
from collections import Counter

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from hri_msgs.msg import Expression
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool
from vision_msgs.msg import Classification

BAR = ' ▁▂▃▄▅▆▇█'
COLORS = {  # of a terminal with 256, those of the plots; colour-blind people can tell them apart
    'neutral': 245,
    'happy': 214,
    'sad': 32,
    'angry': 166,
    'scared': 175,
    'disgusted': 36,
    'surprised': 178,
}
TRANSIENT_LOCAL = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class PrintEmotions(Node):
    """Prints each window, each utterance when it has ended, and a summary."""

    PATIENCE = 0.1
    """Seconds to wait for all messages of one window: their order across topics is not fixed."""

    def __init__(self, is_of_file=False):
        """`is_of_file`: times count from the beginning of the file, not from the first window."""
        super().__init__('print_emotions')
        self.has_ended = False
        self._is_of_file = is_of_file
        self._start = None
        self._windows = []
        self._likeliest = ''
        self._end = 0.0
        self._expressions = {}
        self._utterance = None
        self._is_speaking = False
        self._has_played = False
        self._n_pending = 0
        self.n_windows = 0
        self._decisions = Counter()
        self.create_subscription(Classification, 'emotion/probabilities', self._on_window, 10)
        self.create_subscription(Expression, 'emotion', self._on_expression, 10)
        self.create_subscription(Expression, 'emotion/utterance', self._on_utterance, 10)
        self.create_subscription(Bool, 'is_speaking', self._on_speaking, TRANSIENT_LOCAL)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        print('    time  expression  confidence', flush=True)

    def summary(self):
        """The decisions so far, in one line."""
        if not self.n_windows:
            return 'No speech was detected.'
        n = sum(self._decisions.values())
        counts = ', '.join(
            f'{count} {_in_color(name)}' for name, count in self._decisions.most_common()
        )
        return f'{n} {"utterance" if n == 1 else "utterances"} in {self._end:.1f} s: {counts}.'

    def _on_window(self, message):
        self._windows.append(message)
        self._soon(self._show)

    def _on_expression(self, message):
        self._expressions[_seconds(message)] = message

    def _on_utterance(self, message):
        self._utterance = message

    def _on_speaking(self, message):
        if self._is_speaking and not message.data:
            self._soon(self._show_utterance)
        self._is_speaking = message.data

    def _soon(self, show):
        def once():
            if self._start is None and self._is_of_file:
                return  # once more, until the diagnostics have told when the file began
            self.destroy_timer(timer)
            self._n_pending -= 1
            show()

        self._n_pending += 1
        timer = self.create_timer(self.PATIENCE, once)

    def _show(self):
        window = self._windows.pop(0)
        self.n_windows += 1
        seconds = _seconds(window)
        self._start = seconds if self._start is None else self._start
        self._end = seconds - self._start
        likeliest = sorted(window.results, key=lambda result: -result.score)[:2]
        self._likeliest = ' or '.join(result.class_id for result in likeliest)
        decided = self._expressions.pop(seconds, None)
        if decided:
            expression, confidence = decided.expression, f'{decided.confidence:.2f} '
        else:  # nothing was published on `emotion`: print the probability of the likeliest class
            expression, confidence = 'uncertain', f'({likeliest[0].score:.2f})'
        bars = ' '.join(
            result.class_id[:3] + BAR[min(8, int(result.score * 9))] for result in window.results
        )
        print(
            f'{self._end:6.2f} s  {_in_color(expression, 10)}  {confidence:>6}  {bars}', flush=True
        )

    def _show_utterance(self):
        message, self._utterance = self._utterance, None
        if message is not None and self._start is not None:
            self._end = _seconds(message) - self._start  # its last windows may arrive later
        if message is None:
            self._decisions['uncertain'] += 1
            text = f'It is {_in_color("uncertain")} how this sounded: {self._likeliest}?'
        else:
            self._decisions[message.expression] += 1
            text = (
                f'This sounded {_in_color(message.expression)} ({message.confidence:.2f}): '
                f'{_level(message.valence, "unpleasant", "pleasant")}, '
                f'{_level(message.arousal, "calm", "excited")}.'
            )
        print(f'{self._end:6.2f} s  {text}\n', flush=True)

    def _on_diagnostics(self, message):
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if self._is_of_file and values.get('first stamp', 'none') != 'none':
                self._start = float(values['first stamp'])
            if status.message == 'end of file':
                self._has_played = True
            elif self._has_played and values.get('backlog bytes') == '0':
                # All sound is processed, but something may not be printed yet.
                self.has_ended = not self._is_speaking and not self._n_pending


def _in_color(expression, width=0):
    """The expression, padded to a width; in colour in a terminal that has them."""
    text = f'{expression:<{width}}'
    is_plain = not sys.stdout.isatty() or 'NO_COLOR' in os.environ
    if is_plain or os.environ.get('TERM') in (None, 'dumb') or expression not in COLORS:
        return text
    return f'\033[1;38;5;{COLORS[expression]}m{text}\033[0m'


def _level(value, low, high):
    """-1 to 1 in words."""
    if abs(value) < 0.3:
        return f'neither {low} nor {high}'
    return ('very ' if abs(value) > 0.6 else '') + (high if value > 0 else low)


def _seconds(message):
    return message.header.stamp.sec + message.header.stamp.nanosec * 1e-9


def main():
    """Print until interrupted or, with --until-end-of-file, until the file has been processed."""
    rclpy.init(args=sys.argv)
    until_end = '--until-end-of-file' in sys.argv
    node = PrintEmotions(is_of_file=until_end)
    try:
        while not (until_end and node.has_ended):
            rclpy.spin_once(node)
    except KeyboardInterrupt:
        pass
    except Exception:
        if rclpy.ok():  # else it was interrupted, and rclpy found itself shut down
            raise
    print(node.summary(), flush=True)
    return int(until_end and not node.n_windows)


if __name__ == '__main__':
    sys.exit(main())
