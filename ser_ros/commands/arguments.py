"""Arguments that several commands take."""

import argparse


def device_argument() -> argparse.ArgumentParser:
    """A parent parser with `--device`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        '--device', default='auto', help='auto, cpu, cuda or cuda:N (default auto)'
    )
    return parser
