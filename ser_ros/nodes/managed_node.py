"""What both nodes share: parameters, a life cycle that starts by itself, counters, a worker."""

import dataclasses
import logging
import os
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Optional

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import (
    LifecycleNode,
    LifecyclePublisher,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

from ser_ros import SerError
from ser_ros.nodes import ending

END_TIMEOUT = 5.0
"""Seconds in which a process has to end, once it is to."""


class ManagedNode(LifecycleNode):
    """A lifecycle node whose work is done by one thread while it is active.

    Subclasses give `setup`, `start`, `work`, `stop`, `teardown` and `diagnose`; a SerError from
    `setup` or `start` fails the transition with its message as the one line in the log.
    """

    def __init__(self, name: str, **kwargs: Any):
        super().__init__(name, **kwargs)
        self.declare('autostart', True, 'Configure and activate without being asked to.')
        self.failed = False
        """Whether the node gave up; its process then exits with status 1, for a respawn."""
        self._worker: Optional[threading.Thread] = None
        self._outputs: list[LifecyclePublisher] = []
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._diagnostics_timer = self.create_timer(1.0, self._publish_diagnostics)

    def declare(
        self,
        name: str,
        default: Any,
        description: str,
        limits: Optional[tuple] = None,
        any_type: bool = False,
    ) -> None:
        """Declare a parameter; `limits` is a number's closed range."""
        descriptor = ParameterDescriptor(description=description, dynamic_typing=any_type)
        if limits and isinstance(default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=limits[0], to_value=limits[1])
            ]
        elif limits:
            descriptor.integer_range = [IntegerRange(from_value=limits[0], to_value=limits[1])]
        self.declare_parameter(name, default, descriptor)

    def value(self, name: str) -> Any:
        """A parameter's value."""
        return self.get_parameter(name).value

    def make_output(self, message_type: type, topic: str, qos: Any) -> LifecyclePublisher:
        """Make a publisher that is silent while the node is not active, until clean-up."""
        output = self.create_lifecycle_publisher(message_type, topic, qos)
        self._outputs.append(output)
        return output

    def autostart(self) -> None:
        """Go to active if the parameter says so; give up if that fails."""
        if self.value('autostart'):
            for trigger in (self.trigger_configure, self.trigger_activate):
                if trigger() != TransitionCallbackReturn.SUCCESS:
                    self.give_up()
                    return

    def give_up(self) -> None:
        """End the process with a status that says so."""
        self.failed = True

    # What a subclass does in each transition.

    def setup(self) -> None:
        """Check parameters, load, create publishers."""

    def start(self) -> None:
        """Begin to take input."""

    def work(self) -> None:
        """Run in the worker until `stop`."""

    def stop(self) -> None:
        """Make `work` return soon."""

    def stopped(self) -> None:
        """Put away what `start` made, after the worker has ended."""

    def teardown(self) -> None:
        """Undo `setup`."""

    def diagnose(self) -> tuple[str, dict[str, Any]]:
        """A sentence on how it goes, and figures."""
        raise NotImplementedError

    def trouble(self) -> Optional[str]:
        """What a person should look after; None while all is well."""
        return None

    # The life cycle.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        return self._attempt(self.setup, self._clean_up)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        result = self._attempt(self.start, self.stopped)
        if result != TransitionCallbackReturn.SUCCESS:
            return result
        super().on_activate(state)
        self._worker = threading.Thread(
            target=self._run, name=f'{self.get_name()}_worker', daemon=True
        )
        self._worker.start()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        self._halt()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        self._clean_up()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy; leaves the node as it was before it was configured."""
        self._halt()
        self._clean_up()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        self._halt()
        self._clean_up()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """See rclpy; ends the worker first."""
        self._halt()
        super().destroy_node()

    def _attempt(
        self, action: Callable[[], None], undo: Callable[[], None]
    ) -> TransitionCallbackReturn:
        try:
            action()
        except SerError as error:
            self.get_logger().error(str(error))
            undo()
            return TransitionCallbackReturn.FAILURE
        except Exception:  # rclpy would swallow it; what there is to undo, on_error does
            self.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _run(self) -> None:
        try:
            self.work()
        except SerError as error:
            self.get_logger().fatal(str(error))
            self.give_up()
        except Exception as error:  # a sticky CUDA error among others: only a new process helps
            self.get_logger().fatal(f'{type(error).__name__}: {error}')
            self.give_up()

    def _clean_up(self) -> None:
        self.teardown()
        for output in self._outputs:
            self.destroy_lifecycle_publisher(output)
        self._outputs.clear()

    def _halt(self) -> None:
        if self._worker is not None:
            self.stop()
            self._worker.join()
            self._worker = None
            self.stopped()

    def _publish_diagnostics(self) -> None:
        message, values = self.diagnose()
        trouble = self.trouble()
        status = DiagnosticStatus(
            level=DiagnosticStatus.WARN if trouble else DiagnosticStatus.OK,
            name=f'{self.get_fully_qualified_name().lstrip("/")}',
            message=trouble or message,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def figures(counters: Any) -> dict[str, Any]:
    """A dataclass of counters for `diagnose`."""
    return {name.replace('_', ' '): n for name, n in dataclasses.asdict(counters).items()}


class _RosLogHandler(logging.Handler):
    """Hands what the library logs to a node's logger."""

    def __init__(self, node: ManagedNode):
        super().__init__(logging.WARNING)
        self._node = node

    def emit(self, record: logging.LogRecord) -> None:
        self._node.get_logger().warning(record.getMessage())


def run(*make_nodes: Callable[[], ManagedNode]) -> int:
    """Spin nodes in one thread until the process is asked to end; return its exit status."""
    # rclpy's own handlers would invalidate the context under a worker that publishes.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    ending.listen()
    executor = SingleThreadedExecutor()
    nodes: list[ManagedNode] = []
    try:
        for make_node in make_nodes:
            nodes.append(make_node())
            executor.add_node(nodes[-1])
        logging.getLogger('ser_ros').addHandler(_RosLogHandler(nodes[0]))
        for node in nodes:
            if not ending.ASKED.is_set():
                node.autostart()
        while not ending.ASKED.is_set() and not any(node.failed for node in nodes):
            executor.spin_once(timeout_sec=0.2)
    except (ParameterException, InvalidParameterTypeException) as error:
        get_logger('ser_ros').error(str(error))
        return 1
    finally:
        _end(nodes)
    return int(any(node.failed for node in nodes))


def _end(nodes: Sequence[ManagedNode]) -> None:
    """Destroy the nodes; a GPU or a sound server that hangs must not keep the process."""
    deadline = threading.Timer(END_TIMEOUT, os._exit, (1,))
    deadline.daemon = True
    deadline.start()
    for node in nodes:
        try:
            node.destroy_node()
        except Exception as error:  # after a sticky CUDA error nothing on the GPU works
            node.get_logger().error(f'{type(error).__name__}: {error}')
    rclpy.shutdown()
    deadline.cancel()
