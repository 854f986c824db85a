"""Nodes as processes, watched over the middleware: what the soak and the fault test stand on."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

import rclpy
from ament_index_python.packages import get_package_prefix
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

ROOT = Path(__file__).resolve().parents[1]


def end_when_asked() -> None:
    """Have SIGTERM end this process as an exception does, so that nothing is left behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


class Rig:
    """Processes in a ROS domain of their own, and a node that hears them."""

    def __init__(self, domain_id: int):
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
        self.domain_id = domain_id
        self.processes: dict[str, subprocess.Popen] = {}
        self._statuses: dict[str, tuple[float, DiagnosticStatus]] = {}
        self._news = threading.Condition()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = rclpy.create_node('rig', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.listen(DiagnosticArray, '/diagnostics', self._take)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def listen(
        self, message_type: type, topic: str, callback: Callable[[Any], None], qos: Any = 1_000
    ) -> None:
        """Have `callback` called with each message; conditions of `wait` are looked at then."""

        def hear(message: Any) -> None:
            with self._news:
                callback(message)
                self._news.notify_all()

        self.node.create_subscription(message_type, topic, hear, qos)

    def _take(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._statuses[status.name] = (time.monotonic(), status)

    def start(
        self,
        name: str,
        parameters: Optional[dict[str, Any]] = None,
        command: Sequence[Any] = (),
        environment: Optional[dict[str, str]] = None,
    ) -> None:
        """Start an executable of the package with parameters, or another command."""
        arguments = [
            argument
            for key, value in (parameters or {}).items()
            for argument in ('-p', f'{key}:={value}')
        ]
        executable = Path(get_package_prefix('ser_ros'), 'lib', 'ser_ros', name)
        self._statuses.pop(name, None)
        self.processes[name] = subprocess.Popen(
            [*(command or [executable]), '--ros-args', '--log-level', 'error', *arguments],
            env={**(environment or os.environ), 'ROS_DOMAIN_ID': str(self.domain_id)},
        )

    def kill(self, name: str) -> None:
        """As a crash would."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def status(self, name: str, newer_than: float = 0.0) -> Optional[DiagnosticStatus]:
        """The last one of a node, if it came after an instant of the steady clock."""
        when, status = self._statuses.get(name, (-1.0, None))
        return status if when > newer_than else None

    def values(self, name: str) -> dict[str, str]:
        """The figures of its last status."""
        status = self.status(name)
        return {pair.key: pair.value for pair in status.values} if status else {}

    def wait(self, condition: Callable[[], Any], timeout: float) -> Optional[float]:
        """Seconds until the condition holds; None where it does not in time."""
        start = time.monotonic()
        with self._news:
            while not condition():
                if time.monotonic() - start > timeout:
                    return None
                self._news.wait(0.05)
        return time.monotonic() - start

    def dead(self) -> list[str]:
        """Processes that ended without being killed."""
        return [name for name, process in self.processes.items() if process.poll() is not None]

    def memory(self, name: str) -> float:
        """Megabytes that a process occupies."""
        text = Path(f'/proc/{self.processes[name].pid}/status').read_text()
        (line,) = (line for line in text.splitlines() if line.startswith('VmRSS:'))
        return int(line.split()[1]) / 1024

    def close(self) -> None:
        """End all of it."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """As Markdown."""
    texts = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*texts)]
    texts.insert(1, ['-' * width for width in widths])
    for row in texts:
        cells = (cell.ljust(width) for cell, width in zip(row, widths))
        print(f'| {" | ".join(cells)} |')
    sys.stdout.flush()
