"""The nodes behind the page: their diagnostics, their life cycle, and their services."""

import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Optional

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import TransitionEvent
from lifecycle_msgs.srv import GetState
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future as RosFuture
from std_srvs.srv import SetBool, Trigger

from ser_ros import SerError
from ser_ros.view.model import Model
from ser_ros.view.server import Command

PATIENCE = 3.0
"""Seconds that a node may take to say its state."""


class ViewedNode:
    """Follows the life cycle of one node."""

    def __init__(self, node: Node, full_name: str, model: Model):
        """`full_name`: with its namespace, as `/robot/emotion_node`."""
        self._node, self._model = node, model
        self.name = full_name.lstrip('/')
        """As in diagnostics."""
        self._client = node.create_client(GetState, f'{full_name}/get_state')
        self._events = node.create_subscription(
            TransitionEvent, f'{full_name}/transition_event', self._on_transition, 10
        )
        self._asked: Optional[tuple[float, RosFuture]] = None

    def _on_transition(self, event: TransitionEvent) -> None:
        self._model.set_state(self.name, event.goal_state.label)

    def ask(self) -> None:
        """Ask for its state, unless it has still to answer."""
        if self._asked is not None:
            since, future = self._asked
            if time.monotonic() - since < PATIENCE:
                return
            self._client.remove_pending_request(future)
            self._asked = None
            self._model.set_state(self.name, 'does not answer')
        if not self._client.service_is_ready():
            self._model.set_state(self.name, '')
            return
        future = self._client.call_async(GetState.Request())
        self._asked = (time.monotonic(), future)
        future.add_done_callback(self._on_state)

    def _on_state(self, future: RosFuture) -> None:
        self._asked = None
        if future.exception() is None and future.result() is not None:
            self._model.set_state(self.name, future.result().current_state.label)

    def close(self) -> None:
        """Destroy what it subscribes to."""
        self._node.destroy_client(self._client)
        self._node.destroy_subscription(self._events)


class ViewedDiagnostics:
    """Passes diagnostics on."""

    def __init__(self, node: Node, model: Model):
        self._node, self._model = node, model
        self._subscription = node.create_subscription(
            DiagnosticArray, '/diagnostics', self._on_diagnostics, 50
        )

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            values = {pair.key: pair.value for pair in status.values}
            self._model.add_status(status.name, status.level[0], status.message, values)

    def close(self) -> None:
        """Destroy the subscription."""
        self._node.destroy_subscription(self._subscription)


class Commands:
    """The services of the emotion node as commands of the page, which any thread may call."""

    def __init__(self, node: Node, full_name: str):
        self._node = node
        self._enable = node.create_client(SetBool, f'{full_name}/enable')
        self._triggers = {
            name: node.create_client(Trigger, f'{full_name}/{name}')
            for name in ('reset', 'reload_bundle')
        }

    @property
    def commands(self) -> Mapping[str, Command]:
        """For a `Server`."""
        triggers = {
            name: lambda _, client=client: _call(client, Trigger.Request())
            for name, client in self._triggers.items()
        }
        return {'enable': self._call_enable, **triggers}

    def _call_enable(self, value: Any) -> 'Future[tuple[bool, str]]':
        if not isinstance(value, bool):
            raise SerError('enable needs true or false')
        return _call(self._enable, SetBool.Request(data=value))

    def close(self) -> None:
        """Destroy the clients."""
        for client in (self._enable, *self._triggers.values()):
            self._node.destroy_client(client)


def _call(client: Client, request: Any) -> 'Future[tuple[bool, str]]':
    if not client.service_is_ready():
        raise SerError(f'{client.srv_name}: nobody offers this service now')
    result: Future[tuple[bool, str]] = Future()
    result.set_running_or_notify_cancel()  # whoever waits no longer does not cancel it

    def on_answer(answer: RosFuture) -> None:
        if (error := answer.exception()) is not None:
            result.set_exception(error)
        else:
            result.set_result((answer.result().success, answer.result().message))

    client.call_async(request).add_done_callback(on_answer)
    return result
