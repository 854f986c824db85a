"""Print emotions as they are published: a small behaviour node, and the third process of the demo.

    python examples/print_emotions.py [--until-end-of-file] [--ros-args -r __ns:=/robot]

With --until-end-of-file it ends when a capture node has played its file, and its exit status is 1 if
no speech was detected.
"""

import sys

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from hri_msgs.msg import Expression
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool
from vision_msgs.msg import Classification

BAR = ' ▁▂▃▄▅▆▇█'
TRANSIENT_LOCAL = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class PrintEmotions(Node):
    """Prints each window, and each utterance when it has ended."""

    PATIENCE = 0.1
    """Seconds to wait for all messages of one window: their order across topics is not fixed."""

    def __init__(self):
        super().__init__('print_emotions')
        self.n_windows = 0
        self.has_ended = False
        self._start = None
        self._windows = []
        self._expressions = {}
        self._utterance = None
        self._is_speaking = False
        self._has_played = False
        self.create_subscription(Classification, 'emotion/probabilities', self._on_window, 10)
        self.create_subscription(Expression, 'emotion', self._on_expression, 10)
        self.create_subscription(Expression, 'emotion/utterance', self._on_utterance, 10)
        self.create_subscription(Bool, 'is_speaking', self._on_speaking, TRANSIENT_LOCAL)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        print('   time  expression  confidence', flush=True)

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
            self.destroy_timer(timer)
            show()

        timer = self.create_timer(self.PATIENCE, once)

    def _show(self):
        window = self._windows.pop(0)
        self.n_windows += 1
        seconds = _seconds(window)
        self._start = seconds if self._start is None else self._start
        decided = self._expressions.pop(seconds, None)
        if decided:
            expression, confidence = decided.expression, f'{decided.confidence:.2f} '
        else:  # nothing was published on `emotion`: print the probability of the likeliest class
            likeliest = max(result.score for result in window.results)
            expression, confidence = 'uncertain', f'({likeliest:.2f})'
        bars = ' '.join(
            result.class_id[:3] + BAR[min(8, int(result.score * 9))] for result in window.results
        )
        print(
            f'{seconds - self._start:6.2f} s  {expression:<10}  {confidence:>6}  {bars}',
            flush=True,
        )

    def _show_utterance(self):
        message, self._utterance = self._utterance, None
        if message is None:
            print('          the utterance as a whole: uncertain', flush=True)
            return
        print(
            f'          the utterance as a whole: {message.expression} '
            f'({message.confidence:.2f}), '
            f'valence {message.valence:+.2f}, arousal {message.arousal:+.2f}',
            flush=True,
        )

    def _on_diagnostics(self, message):
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if status.message == 'end of file':
                self._has_played = True
            elif self._has_played and values.get('backlog bytes') == '0':
                # All sound is processed; a window may not be printed yet.
                self.has_ended = not self._is_speaking and not self._windows


def _seconds(message):
    return message.header.stamp.sec + message.header.stamp.nanosec * 1e-9


def main():
    """Print until interrupted or, with --until-end-of-file, until the file has been processed."""
    rclpy.init(args=sys.argv)
    until_end = '--until-end-of-file' in sys.argv
    node = PrintEmotions()
    try:
        while not (until_end and node.has_ended):
            rclpy.spin_once(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    return int(until_end and not node.n_windows)


if __name__ == '__main__':
    sys.exit(main())
