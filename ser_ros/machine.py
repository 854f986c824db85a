"""What the machine is."""

import platform
from pathlib import Path


def processor() -> str:
    """The processor's model as Linux names it; on other systems as Python does."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()
