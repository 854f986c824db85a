"""Several runs, of which some may fail, or belong to another process that shares the work."""

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from filelock import Timeout

from ser_ros import SerError


@dataclass
class Attempts:
    """Attempts runs one by one; what is not finished is kept by name."""

    failures: dict[str, str] = field(default_factory=dict)
    """Name of a run → its error."""
    elsewhere: list[str] = field(default_factory=list)
    """Runs that another process works on."""

    def attempt(self, name: str, run: Callable[[], None]) -> None:
        """Call `run`, which may raise Timeout if another process works on it.

        One that fails does not stop the others, which may take hours: its error is printed at
        once.
        """
        try:
            run()
        except Timeout:
            self.elsewhere.append(name)
        except SerError as error:
            self._fail(name, str(error))
        except Exception as error:  # any error; the other runs must still be trained
            traceback.print_exc()
            self._fail(name, f'{type(error).__name__}: {str(error).strip()}')

    def print_failures(self) -> None:
        """Print each error once, with the names of all runs that it stopped."""
        for reason in dict.fromkeys(self.failures.values()):
            names = [name for name in self.failures if self.failures[name] == reason]
            print(f'ser_ros: {", ".join(names)}: {reason}', file=sys.stderr, flush=True)

    def _fail(self, name: str, reason: str) -> None:
        self.failures[name] = reason
        print(f'ser_ros: {name}: {reason}', file=sys.stderr, flush=True)
