"""A thread for subscriptions with many messages, apart from the services of a node."""

import contextlib
import threading
from collections.abc import Callable

from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter

from ser_ros import HangError

PATIENCE = 10.0
"""Seconds in which the thread must end after it was stopped."""


class SubscriptionThread:
    """Runs the callbacks of `node`, which has subscriptions alone, in a thread.

    For each message an executor of rclpy waits anew for every service, timer and event of its nodes.
    Of a lifecycle node those are about forty, and take several times as long as to receive the message.
    """

    def __init__(self, owner: Node, name: str, on_error: Callable[[Exception], None]):
        """`name`: added to the owner's. `on_error` is called in the thread, which then ends."""
        self.node = Node(
            f'{owner.get_name()}_{name}',
            context=owner.context,
            namespace=owner.get_namespace(),
            # Those rename nodes and topics: the owner's names are resolved already.
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
            parameter_overrides=[Parameter('start_type_description_service', value=False)],
        )
        self._on_error = on_error
        self._is_stopping = False
        self._executor = SingleThreadedExecutor(context=owner.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._run, name=self.node.get_name(), daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                # A subscription that is destroyed while the executor collects what it waits for is gone
                # the next time.
                with contextlib.suppress(InvalidHandle):
                    self._executor.spin_once()
        except ExternalShutdownException:
            pass
        except Exception as error:
            self._on_error(error)

    def close(self) -> None:
        """End the thread and destroy the node; HangError if a callback does not return."""
        self._is_stopping = True
        self._executor.create_task(lambda: None)  # so that it waits no longer
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            raise HangError(
                f'{self.node.get_name()} hangs: it was stopped and has not ended for '
                f'{PATIENCE:g} s; only a new process helps'
            )
        self._executor.shutdown()
        self.node.destroy_node()
