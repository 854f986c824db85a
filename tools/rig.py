"""Nodes as processes, observed over the middleware: the base of the soak and fault tests."""

import os
import random
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
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.publisher import Publisher

ROOT = Path(__file__).resolve().parents[1]


def exit_on_sigterm() -> None:
    """Make SIGTERM end this process by an exception, so that it cleans up after itself."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


class SpinThread(threading.Thread):
    """Spins an executor until it is stopped."""

    def __init__(self, executor: Executor):
        super().__init__(daemon=True)
        self._executor = executor
        self._stopping = threading.Event()

    def run(self) -> None:
        """Spin; called by `start`."""
        while not self._stopping.is_set():
            self._executor.spin_once()

    def call(self, function: Callable[[], Any], timeout: float = 60.0) -> Any:
        """Call a function in this thread, as a callback is called; returns what it returns.

        What another thread destroys there may be in use. TimeoutError where it does not return.
        """
        done = threading.Event()
        task = self._executor.create_task(function)
        task.add_done_callback(lambda _: done.set())
        if not done.wait(timeout):
            raise TimeoutError(f'{function} has not returned for {timeout:g} s')
        return task.result()

    def stop(self) -> None:
        """End the thread, then shut the executor down: it would destroy what the thread waits on."""
        self._executor.create_task(self._stopping.set)
        self.join()
        self._executor.shutdown()


class Rig:
    """Processes in a ROS domain of their own, and a node that receives their messages."""

    def __init__(self, domain_id: Optional[int] = None):
        """`domain_id`: None to draw one, since that of the shell may be a robot's."""
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
        self.domain_id = random.randrange(1, 100) if domain_id is None else domain_id
        self.processes: dict[str, subprocess.Popen] = {}
        self._statuses: dict[str, tuple[float, DiagnosticStatus]] = {}
        self._received = threading.Condition()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=self.domain_id)
        self.node = rclpy.create_node('rig', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.subscribe(DiagnosticArray, '/diagnostics', self._store)
        self._thread = SpinThread(self._executor)
        self._thread.start()

    def subscribe(
        self, message_type: type, topic: str, callback: Callable[[Any], None], qos: Any = 1_000
    ) -> None:
        """Call `callback` with each message; `wait` then evaluates its condition."""

        def receive(message: Any) -> None:
            with self._received:
                callback(message)
                self._received.notify_all()

        self.node.create_subscription(message_type, topic, receive, qos)

    def destroy(self, publisher: Publisher) -> None:
        """Destroy a publisher of the node."""
        self._thread.call(lambda: self.node.destroy_publisher(publisher))

    def _store(self, message: DiagnosticArray) -> None:
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
        """End a process as a crash does."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def status(self, name: str, newer_than: float = 0.0) -> Optional[DiagnosticStatus]:
        """The last status of a node; None unless received after this time of the monotonic clock."""
        received_at, status = self._statuses.get(name, (-1.0, None))
        return status if received_at > newer_than else None

    def values(self, name: str) -> dict[str, str]:
        """The values of a node's last status; empty before the first."""
        status = self.status(name)
        return {pair.key: pair.value for pair in status.values} if status else {}

    def wait(self, condition: Callable[[], Any], timeout: float) -> Optional[float]:
        """Seconds until the condition holds; None if it does not within `timeout` seconds."""
        start = time.monotonic()
        with self._received:
            while not condition():
                if time.monotonic() - start > timeout:
                    return None
                self._received.wait(0.05)
        return time.monotonic() - start

    def ended(self) -> list[str]:
        """Names of the processes that ended without being killed."""
        return [name for name, process in self.processes.items() if process.poll() is not None]

    def memory(self, name: str) -> float:
        """Resident memory of a process in megabytes."""
        text = Path(f'/proc/{self.processes[name].pid}/status').read_text()
        (line,) = (line for line in text.splitlines() if line.startswith('VmRSS:'))
        return int(line.split()[1]) / 1024

    def close(self) -> None:
        """End all processes and the node."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.stop()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table in Markdown."""
    texts = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*texts)]
    texts.insert(1, ['-' * width for width in widths])
    for row in texts:
        cells = (cell.ljust(width) for cell, width in zip(row, widths))
        print(f'| {" | ".join(cells)} |')
    sys.stdout.flush()
