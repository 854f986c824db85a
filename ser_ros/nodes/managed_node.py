"""What both nodes share: parameters, a life cycle that starts by itself, diagnostics, a worker."""

import re
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Optional

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import (
    LifecycleNode,
    LifecyclePublisher,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.parameter import Parameter

from ser_ros import HangError, SerError, TransientError
from ser_ros.nodes import given_parameters, shutdown
from ser_ros.nodes.diagnostics import Level, Report, resident_megabytes
from ser_ros.nodes.parameters import ParameterSpec

PATIENCE = 10.0
"""Seconds in which the worker must end after it was stopped."""


class ManagedNode(LifecycleNode):
    """A lifecycle node whose work is done by one thread while it is active.

    Subclasses implement `setup`, `start`, `work`, `stop`, `teardown` and `report`; a SerError from
    `setup` or `start` fails the transition, and its message is the one line in the log. An error
    of the worker ends the process where the node started by itself, so that it is respawned; a
    node under a lifecycle manager goes through the error state and can be configured again. A
    worker that hangs ends the process in both cases: no callback waits for it without a limit.
    """

    def __init__(self, name: str, parameters: Sequence[ParameterSpec], **kwargs: Any):
        super().__init__(name, **kwargs)
        self.failed = False
        """Whether the node gave up; its process then exits with status 1, for a respawn."""
        self.is_misconfigured = False
        """Whether it gave up because of its settings, so that another start would do the same."""
        self.hangs = False
        """Whether its work does not return: it may still do anything, so what it uses stays."""
        self.failure: Optional[str] = None
        """What ended the worker, until the node is configured again."""
        self._refusal: Optional[SerError] = None
        """Why the last attempt to configure or activate failed, until the next."""
        self._is_configured = False
        self._worker: Optional[threading.Thread] = None
        self._outputs: list[LifecyclePublisher] = []
        self._logged: Optional[str] = None
        """The problem logged last, without its numbers."""
        self._problem = ''
        """The same with them."""
        self._fixed = {spec.name for spec in parameters if not spec.is_live}
        """Parameters that may not change while the node is configured."""
        self._defaults = {spec.name: spec.default for spec in parameters if not spec.any_type}
        # What rclpy declares with: it would refuse 1 for 1.0.
        self._parameter_overrides = {
            p.name: p for p in self._convert_numbers([*self._parameter_overrides.values()])
        }
        for spec in parameters:
            self.declare_parameter(spec.name, spec.default, _descriptor(spec))
        self._doubt_parameters([spec.name for spec in parameters], **kwargs)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # By the steady clock: diagnostics continue while simulated time stands still.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics_timer = self.create_timer(
            1.0, self._publish_diagnostics, clock=self._steady
        )
        self._end_of_work = self.create_guard_condition(self._go_to_error_state)
        self.add_pre_set_parameters_callback(self._convert_numbers)
        self.add_on_set_parameters_callback(self._validate_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)

    def value(self, name: str) -> Any:
        """A parameter's value."""
        return self.get_parameter(name).value

    def _convert_numbers(self, parameters: list[Parameter]) -> list[Parameter]:
        """Accept 1 for a 1.0, and 2.0 for a 2."""
        return [
            Parameter(p.name, value=given_parameters.as_declared(p.value, self._defaults[p.name]))
            if p.name in self._defaults
            else p
            for p in parameters
        ]

    def _doubt_parameters(
        self,
        known: Sequence[str],
        cli_args: Sequence[str] = (),
        use_global_arguments: bool = True,
        **_: Any,
    ) -> None:
        """Warn of what was given and is ignored, because a name is misspelt."""
        arguments = [*(sys.argv if use_global_arguments else ()), *(cli_args or ())]
        for sentence in (
            *given_parameters.unknown_parameters(self._parameter_overrides, known),
            *given_parameters.unused_keys(arguments, self.get_fully_qualified_name()),
        ):
            self.get_logger().warning(sentence)

    def _validate_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        """Refuse what may not change now, and values that do not fit together."""
        changed = {p.name: p.value for p in parameters if self.has_parameter(p.name)}
        fixed = [name for name in changed if name in self._fixed]
        if self._is_configured and fixed:
            return SetParametersResult(
                successful=False,
                reason=f'{", ".join(fixed)}: read when the node is configured; clean it up first',
            )
        try:
            self.check_parameters(changed)
        except SerError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_parameters(self, parameters: Sequence[Parameter]) -> None:
        if self._is_configured:
            self.apply_parameters({parameter.name for parameter in parameters})

    def make_output(self, message_type: type, topic: str, qos: Any) -> LifecyclePublisher:
        """Create a publisher that is silent while the node is not active, until clean-up."""
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
                if shutdown.REQUESTED.is_set():  # while the bundle was loaded
                    return
                if trigger() != TransitionCallbackReturn.SUCCESS:
                    self.give_up()
                    self.is_misconfigured = self._refusal is not None and not (
                        isinstance(self._refusal, TransientError)
                        or self.needs_new_process(self._refusal)
                    )
                    return

    # A private method of rclpy: its service and its trigger_... functions call it.
    def _LifecycleNodeMixin__change_state(  # noqa: N802
        self, transition_id: int
    ) -> TransitionCallbackReturn:
        """Refuse a transition that the state does not have: rclpy's own method ends the process."""
        possible = {transition[0] for transition in self._state_machine.available_transitions}
        if transition_id not in possible:
            _, state = self._state_machine.current_state
            self.get_logger().warning(
                f'transition {transition_id} is not possible while the node is {state}'
            )
            return TransitionCallbackReturn.FAILURE
        return super()._LifecycleNodeMixin__change_state(transition_id)

    def give_up(self) -> None:
        """End the process with a status that says so."""
        self.failed = True

    # What a subclass does in each transition.

    def setup(self) -> None:
        """Check parameters, load, create publishers."""

    def start(self) -> None:
        """Start to take input."""

    def work(self) -> None:
        """Run in the worker until `stop`."""

    def stop(self) -> None:
        """Make `work` return soon."""

    def after_stop(self) -> None:
        """Undo `start`, even half of it or nothing, after the worker has ended."""

    def teardown(self) -> None:
        """Undo `setup`, even half of it."""

    def check_parameters(self, changed: dict[str, Any]) -> None:
        """Raise SerError where the new values do not fit together or with the others."""

    def apply_parameters(self, changed: set[str]) -> None:
        """Apply parameters that changed while the node was configured."""

    def every_second(self) -> None:
        """Do what is due once a second while the node is active."""

    def needs_new_process(self, error: Exception) -> bool:
        """Whether only a new process helps after this error."""
        return isinstance(error, HangError)

    def report(self) -> Report:
        """The node's state while it is configured; of an inactive node only the values count."""
        raise NotImplementedError

    # The life cycle.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        result = self._attempt(self.setup, self._clean_up)
        self._is_configured = result == TransitionCallbackReturn.SUCCESS
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        result = self._attempt(self.start, self.after_stop)
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
        return self._result()

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        self._refusal = None
        self._clean_up()
        return self._result()

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

    def _result(self) -> TransitionCallbackReturn:
        """Of leaving a state: an error where anything failed in it, or while leaving it."""
        failed = self.failure is not None
        return TransitionCallbackReturn.ERROR if failed else TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """See rclpy; ends the worker first."""
        self._halt()
        # rclpy keeps it, and with it the node stays in the graph until it is garbage collected.
        self._state_machine.destroy_when_not_in_use()
        super().destroy_node()

    def _attempt(
        self, action: Callable[[], None], undo: Callable[[], None]
    ) -> TransitionCallbackReturn:
        self._refusal = None
        if not self.hangs:
            self.failure = None
        try:
            action()
        except SerError as error:
            self._refusal = error
            self.get_logger().error(str(error))
            if self.needs_new_process(error):
                self.give_up()
            self._try(undo)
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # on_error undoes what there is to undo
            self._fail(error)
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def ask_worker(self, errand: Callable[[], None]) -> bool:
        """Run what waits for the worker; if that hangs, return False, and the process ends."""
        try:
            errand()
        except HangError as error:
            self._fail(error)
        return not self.hangs

    def _run(self) -> None:
        try:
            self.work()
        except Exception as error:
            self.end_work(error)

    def end_work(self, error: Exception) -> None:
        """End the work because of an error in one of its threads, which calls this."""
        if self.hangs:  # it came back after it was given up
            return
        self._fail(error)
        if self.value('autostart'):
            self.give_up()
        self._end_of_work.trigger()

    def _try(self, *steps: Callable[[], None]) -> None:
        """Run all steps, whichever of them fail: rclpy would swallow an error, and the rest."""
        for step in steps:
            try:
                step()
            except Exception as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self.hangs:  # all that fails now follows from it
            return
        self.hangs = isinstance(error, HangError)
        kind = '' if isinstance(error, SerError) else f'{type(error).__name__}: '
        self.failure = f'{kind}{error}'
        self.get_logger().fatal(self.failure)
        if self.needs_new_process(error):
            self.give_up()
        elif kind:
            self.get_logger().error(traceback.format_exc())

    def _go_to_error_state(self) -> None:
        if self.failure is not None and self._worker is not None:
            self.trigger_deactivate()

    def _clean_up(self) -> None:
        self._is_configured = False
        self._try(self.teardown)
        for output in self._outputs:
            self.destroy_lifecycle_publisher(output)
        self._outputs.clear()

    def _halt(self) -> None:
        if self.hangs:
            return
        if self._worker is not None:
            self._try(self.stop, self._await_worker)
            self._worker = None
        if not self.hangs:
            self._try(self.after_stop)

    def _await_worker(self) -> None:
        self._worker.join(PATIENCE)
        if self._worker.is_alive():
            raise HangError(
                f'the worker hangs: it was stopped and has not ended for {PATIENCE:g} s; '
                'only a new process helps'
            )

    # Diagnostics.

    def diagnose(self) -> Report:
        """The state of the node, configured or not."""
        if self.failure is not None:
            if self.hangs:
                return Report(Level.ERROR, f'it gave up: {self.failure}')
            name = self.get_fully_qualified_name()
            back = f'configure and activate it again: ros2 lifecycle set {name} configure'
            return Report(Level.ERROR, f'it gave up: {self.failure}; {back}')
        level, reason = Level.OK, ''
        if self._refusal is not None:
            level, reason = Level.ERROR, f': {self._refusal}'
        if not self._is_configured:
            return Report(level, f'not configured{reason}')
        report = self.report()
        if self._worker is None:
            return Report(level, f'not active{reason}', report.values)
        return report

    def _publish_diagnostics(self) -> None:
        if self._worker is not None and self.failure is None:
            self.ask_worker(self.every_second)
        report = self.diagnose()
        report.values['memory MB'] = resident_megabytes()
        name = self.get_fully_qualified_name().lstrip('/')
        array = DiagnosticArray(status=[_to_status(name, report)])
        for part, its_report in report.parts.items():
            array.status.append(_to_status(f'{name}: {part}', its_report))
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)
        self._log(report)

    def _log(self, report: Report) -> None:
        """Log a new problem once, whatever its numbers, a lasting one every ten seconds, and its end."""
        problem = re.sub(r'[\d.]+', '', report.message)
        if report.level == Level.OK:
            if self._logged is not None:
                self.get_logger().info(f'{report.message}; this is over: {self._problem}')
            self._logged = None
        elif problem != self._logged:
            self._logged, self._problem = problem, report.message
            self.get_logger().warning(report.message)
        else:
            self.get_logger().warning(report.message, throttle_duration_sec=10.0, skip_first=True)


def _to_status(name: str, report: Report) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=report.level,
        name=name,
        message=report.message,
        values=[KeyValue(key=key, value=str(value)) for key, value in report.values.items()],
    )


def _descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=spec.full_description,
        dynamic_typing=spec.any_type,
        read_only=spec.read_only,
    )
    if spec.limits:
        low, high = spec.limits
        if isinstance(spec.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        else:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
    return descriptor
