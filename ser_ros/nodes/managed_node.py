"""What both nodes share: parameters, a life cycle that starts by itself, diagnostics, a worker."""

import dataclasses
import logging
import re
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterTypeException, ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import (
    LifecycleNode,
    LifecyclePublisher,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.logging import get_logger
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from ser_ros import SerError
from ser_ros.nodes import ending

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)

PATIENCE = 10.0
"""Seconds in which work has to end, once it is stopped."""


@dataclasses.dataclass(frozen=True)
class Report:
    """How a node is."""

    level: bytes
    """OK, WARN, ERROR or STALE."""
    message: str
    """A sentence for a person."""
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Figures by their names."""


class ManagedNode(LifecycleNode):
    """A lifecycle node whose work is done by one thread while it is active.

    Subclasses give `setup`, `start`, `work`, `stop`, `teardown` and `report`; a SerError from
    `setup` or `start` fails the transition with its message as the one line in the log. An error
    of the worker ends the process where it started by itself, for a respawn; a node that others
    manage goes through the error state to where it can be configured again.
    """

    def __init__(self, name: str, **kwargs: Any):
        super().__init__(name, **kwargs)
        self.failed = False
        """Whether the node gave up; its process then exits with status 1, for a respawn."""
        self._failure: Optional[str] = None
        """What ended the worker, until the node is configured again."""
        self._is_configured = False
        self._worker: Optional[threading.Thread] = None
        self._outputs: list[LifecyclePublisher] = []
        self._told: Optional[str] = None
        """The trouble that the log speaks of, without its figures."""
        self._fixed: list[str] = []
        """Parameters that are read when the node is configured."""
        self.declare(
            'autostart', True, 'Configure and activate without being asked to.', read_only=True
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # By the steady clock: diagnostics go on while simulated time stands still.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics_timer = self.create_timer(
            1.0, self._publish_diagnostics, clock=self._steady
        )
        self._end_of_work = self.create_guard_condition(self._go_to_error_state)
        self.add_on_set_parameters_callback(self._judge_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)

    def declare(
        self,
        name: str,
        default: Any,
        description: str,
        limits: Optional[tuple] = None,
        any_type: bool = False,
        is_live: bool = False,
        read_only: bool = False,
    ) -> None:
        """Declare a parameter; `limits` is a number's closed range.

        `is_live`: it may change at any time. Others may while the node is not configured, and
        `read_only` ones never.
        """
        if not is_live:
            self._fixed.append(name)
            description += ' Fixed.' if read_only else ' Read when the node is configured.'
        descriptor = ParameterDescriptor(
            description=description, dynamic_typing=any_type, read_only=read_only
        )
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

    def _judge_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        """Refuse what may not change now, and values that do not go together."""
        changed = {p.name: p.value for p in parameters if self.has_parameter(p.name)}
        fixed = [name for name in changed if name in self._fixed]
        if self._is_configured and fixed:
            return SetParametersResult(
                successful=False,
                reason=f'{", ".join(fixed)}: read when the node is configured; clean it up first',
            )
        try:
            self.check(changed)
        except SerError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take_parameters(self, parameters: Sequence[Parameter]) -> None:
        if self._is_configured:
            self.apply({parameter.name for parameter in parameters})

    def make_output(self, message_type: type, topic: str, qos: Any) -> LifecyclePublisher:
        """Make a publisher that is silent while the node is not active, until clean-up."""
        output = self.create_lifecycle_publisher(message_type, topic, qos)
        if self._worker is not None:
            output.on_activate(None)
        self._outputs.append(output)
        return output

    def drop_output(self, output: LifecyclePublisher) -> None:
        """Destroy a publisher of `make_output`."""
        self._outputs.remove(output)
        self.destroy_lifecycle_publisher(output)

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
        """Put away what `start` made, even half of it or none, after the worker has ended."""

    def teardown(self) -> None:
        """Undo `setup`, even half of it."""

    def check(self, changed: dict[str, Any]) -> None:
        """SerError where parameters that are to change so do not go with each other."""

    def apply(self, changed: set[str]) -> None:
        """Take over parameters that changed while the node was configured."""

    def look_around(self) -> None:
        """What is to be done once a second, while the node is active."""

    def is_beyond_repair(self, error: Exception) -> bool:
        """Whether only a new process helps."""
        return False

    def report(self) -> Report:
        """How it goes, while the node is configured; inactive, only the figures count."""
        raise NotImplementedError

    # The life cycle.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        result = self._attempt(self.setup, self._clean_up)
        if result == TransitionCallbackReturn.SUCCESS:
            self._is_configured, self._failure = True, None
        return result

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
        super().on_deactivate(state)
        return self._outcome()

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        self._clean_up()
        return self._outcome()

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

    def _outcome(self) -> TransitionCallbackReturn:
        """Of leaving a state: an error where anything failed in it, or on the way out."""
        failed = self._failure is not None
        return TransitionCallbackReturn.ERROR if failed else TransitionCallbackReturn.SUCCESS

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
            if self.is_beyond_repair(error):
                self.give_up()
            self._try(undo)
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # what there is to undo, on_error does
            self._fail(error)
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _run(self) -> None:
        try:
            self.work()
        except Exception as error:
            self._fail(error)
            if self.value('autostart'):
                self.give_up()
            self._end_of_work.trigger()

    def _try(self, *steps: Callable[[], None]) -> None:
        """All of these, whatever comes of each: rclpy would swallow an error, and the rest."""
        for step in steps:
            try:
                step()
            except Exception as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        kind = '' if isinstance(error, SerError) else f'{type(error).__name__}: '
        self._failure = f'{kind}{error}'
        self.get_logger().fatal(self._failure)
        if self.is_beyond_repair(error):
            self.give_up()
        elif kind:
            self.get_logger().error(traceback.format_exc())

    def _go_to_error_state(self) -> None:
        if self._failure is not None and self._worker is not None:
            self.trigger_deactivate()

    def _clean_up(self) -> None:
        self._is_configured = False
        self._try(self.teardown)
        for output in self._outputs:
            self.destroy_lifecycle_publisher(output)
        self._outputs.clear()

    def _halt(self) -> None:
        if self._worker is not None:
            self._try(self.stop, self._await_worker)
            self._worker = None
        self._try(self.stopped)

    def _await_worker(self) -> None:
        self._worker.join(PATIENCE)
        if self._worker.is_alive():  # it may do anything yet: only a new process helps
            self.give_up()
            raise SerError(f'its work has not ended for {PATIENCE:g} s')

    # Diagnostics.

    def diagnose(self) -> Report:
        """How the node is, in whatever state."""
        if self._failure is not None:
            name = self.get_fully_qualified_name()
            back = f'configure and activate it again: ros2 lifecycle set {name} configure'
            return Report(ERROR, f'it gave up: {self._failure}; {back}')
        if not self._is_configured:
            return Report(OK, 'not configured')
        report = self.report()
        return report if self._worker is not None else Report(OK, 'not active', report.values)

    def _publish_diagnostics(self) -> None:
        if self._worker is not None and self._failure is None:
            self.look_around()
        report = self.diagnose()
        values = {**report.values, 'memory MB': resident_megabytes()}
        status = DiagnosticStatus(
            level=report.level,
            name=self.get_fully_qualified_name().lstrip('/'),
            message=report.message,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)
        self._log(report)

    def _log(self, report: Report) -> None:
        """Once what is new, whatever its figures, and what stays every ten seconds."""
        news = re.sub(r'[\d.]+', '', report.message)
        if report.level == OK:
            self._told = None
        elif news != self._told:
            self._told = news
            self.get_logger().warning(report.message)
        else:
            self.get_logger().warning(report.message, throttle_duration_sec=10.0, skip_first=True)


def figures(counters: Any) -> dict[str, Any]:
    """A dataclass of counters for a report."""
    return {name.replace('_', ' '): round(n, 3) for name, n in vars(counters).items()}


def resident_megabytes() -> float:
    """Memory that the process occupies, in 2^20 bytes."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmRSS:'):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


class _RosLogHandler(logging.Handler):
    """Hands what the library logs to a node's logger."""

    def __init__(self, node: ManagedNode):
        super().__init__(logging.WARNING)
        self._node = node

    def emit(self, record: logging.LogRecord) -> None:
        self._node.get_logger().warning(record.getMessage())


def run(*make_nodes: Callable[[], ManagedNode]) -> int:
    """Spin nodes in one thread until the process is asked to end; return its exit status.

    With the status the process is to end: `ending.TIMEOUT` seconds later it does in any case.
    """
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
        ending.give_up_soon()
        _end(nodes)
    return int(any(node.failed for node in nodes))


def _end(nodes: Sequence[ManagedNode]) -> None:
    """Destroy the nodes."""
    for node in nodes:
        try:
            node.destroy_node()
        except Exception as error:  # after a sticky CUDA error nothing on the GPU works
            node.get_logger().error(f'{type(error).__name__}: {error}')
    rclpy.shutdown()
