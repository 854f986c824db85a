"""What a command that prints for long does with the terminal."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def later_interrupt() -> Iterator[None]:
    """Let a Ctrl-C take effect at the end of the block; a second one does so at once."""
    if threading.current_thread() is not threading.main_thread():  # signals are not its business
        yield
        return
    before, signals = signal.getsignal(signal.SIGINT), []

    def remember(*arguments: Any) -> None:
        signals.append(arguments)
        if len(signals) > 1:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if signals and callable(before):
        before(*signals[0])


class NoBar:
    """A progress bar that is not there."""

    def update(self, n: int = 1) -> None:
        """Nothing."""

    def printing(self) -> contextlib.AbstractContextManager[None]:
        """Nothing."""
        return contextlib.nullcontext()


@contextlib.contextmanager
def progress_bar(total: int, title: str, unit: str) -> Iterator[Any]:
    """A progress bar on stderr where it is a terminal, with `update`; none without tqdm.

    Lines are printed in the context `printing`, which they share the terminal with.
    """
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:  # it comes with the extra train
        yield NoBar()
        return
    with tqdm(total=total, desc=title, unit=unit, leave=False, disable=None) as bar:
        bar.printing = tqdm.external_write_mode
        yield bar
