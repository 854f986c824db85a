"""A process of nodes: one thread that spins them until the process is asked to end."""

import logging
import os
from collections.abc import Callable, Sequence

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

from ser_ros.nodes import CONFIGURATION_ERROR, shutdown
from ser_ros.nodes.managed_node import ManagedNode
from ser_ros.nodes.watchdog import Watchdog

PATIENCE = 120.0
"""Seconds that one callback may take: to load a model onto a GPU that is used for the first time."""


def run(*make_nodes: Callable[[], ManagedNode]) -> int:
    """Spin nodes in one thread until the process is asked to end; return its exit status.

    When this returns, the process must end within `shutdown.TIMEOUT` seconds: then it is ended.
    The status is `CONFIGURATION_ERROR` if the settings of a node are wrong, and 1 where another
    start may succeed. Where a callback takes more than `PATIENCE` seconds, or a node's work hangs,
    the process ends here, with status 1.
    """
    # rclpy's own handlers would invalidate the context under a worker that publishes.
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # of rcl, which has no class for invalid arguments and files
        return _refuse(error)
    shutdown.install_signal_handlers()
    shutdown.NODES_EXIST.set()
    executor = SingleThreadedExecutor()
    shutdown.ON_SIGNAL.append(executor.wake)
    watchdog = Watchdog(PATIENCE, _end_hanging_process)
    watchdog.start()
    nodes: list[ManagedNode] = []
    try:
        for make_node in make_nodes:
            nodes.append(make_node())
            executor.add_node(nodes[-1])
        logging.getLogger('ser_ros').addHandler(_RosLogHandler(nodes[0]))
        for node in nodes:
            watchdog.reset()
            if not shutdown.REQUESTED.is_set():
                node.autostart()
        while not shutdown.REQUESTED.is_set() and not any(node.failed for node in nodes):
            watchdog.reset()
            executor.spin_once()  # at most a second: each node publishes diagnostics
    except (ParameterException, InvalidParameterTypeException) as error:
        return _refuse(error)
    finally:
        watchdog.stop()
        shutdown.exit_after_timeout()
        shutdown.ON_SIGNAL.clear()  # an executor that outlives rclpy cannot be destroyed
        _destroy(nodes)
        shutdown.ignore_signals()
    if any(node.hangs for node in nodes):
        os._exit(1)  # the interpreter may crash if it ends while a thread is within a library
    if any(node.is_misconfigured for node in nodes):
        return CONFIGURATION_ERROR
    return int(any(node.failed for node in nodes))


def _refuse(error: Exception) -> int:
    reason = ' '.join(str(error).partition(', at ')[0].split())
    get_logger('ser_ros').error(reason)
    return CONFIGURATION_ERROR


def _end_hanging_process() -> None:
    get_logger('ser_ros').fatal(
        f'a callback has not returned for {PATIENCE:g} s, as when a GPU or a disk does not answer; '
        'only a new process helps'
    )
    os._exit(1)


def _destroy(nodes: Sequence[ManagedNode]) -> None:
    for node in nodes:
        try:
            node.destroy_node()
        except Exception as error:  # after a sticky CUDA error nothing on the GPU works
            node.get_logger().error(f'{type(error).__name__}: {error}')
    rclpy.shutdown()


class _RosLogHandler(logging.Handler):
    """Passes what the library logs to a node's logger."""

    def __init__(self, node: ManagedNode):
        super().__init__(logging.WARNING)
        self._node = node

    def emit(self, record: logging.LogRecord) -> None:
        self._node.get_logger().warning(record.getMessage())
