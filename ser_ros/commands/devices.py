"""List microphones and compute devices."""

import argparse


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `devices`."""
    parser = commands.add_parser('devices', help='list microphones and compute devices')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the devices of this machine."""
    import importlib.util
    import os

    from ser_ros.audio.microphone import input_devices
    from ser_ros.audio.sources import SourceError

    print('compute')
    print(f'  cpu     {os.cpu_count()} processors')
    if importlib.util.find_spec('torch'):
        import torch

        for index in range(torch.cuda.device_count()):
            print(f'  cuda:{index}  {torch.cuda.get_device_name(index)}')
    else:
        print('  torch is not installed: GPUs cannot be used')
    print('microphones')
    try:
        devices = input_devices()
    except SourceError as error:
        print(f'  {error}')
        return
    for index, device in devices:
        print(
            f'  {index:>3}  {device["name"]}: up to {device["max_input_channels"]} channels, '
            f'{device["default_samplerate"]:g} Hz'
        )
    if not devices:
        print('  none')
