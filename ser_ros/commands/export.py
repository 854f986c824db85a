"""Write a bundle as ONNX and as a torch.export program."""

import argparse
from pathlib import Path

from ser_ros.commands.arguments import path_of


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `export`."""
    parser = commands.add_parser(
        'export',
        help='write a bundle as ONNX and as a torch.export program, or put ONNX into it',
        description='Write a bundle as programs that need no ser_ros: raw float32 sound (batch, '
        "samples) at the front-end's rate in, calibrated log-probabilities (batch, classes) out. "
        'They are checked against the bundle first.',
    )
    parser.add_argument('bundle', nargs='?', default='', help='default: the shipped one')
    parser.add_argument(
        '--out',
        type=path_of,
        metavar='FILE',
        help="name of the files, to which .onnx and .pt2 are added (default: the bundle's, here)",
    )
    parser.add_argument(
        '--inside',
        action='store_true',
        help='instead: put the programs of a stream into the bundle itself, for robots without torch',
    )
    parser.add_argument('--format', choices=('onnx', 'torch', 'both'), default='both')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Export, and print the files with their largest difference from the bundle."""
    from ser_ros.bundle import load_bundle, save_bundle
    from ser_ros.export import SUFFIXES, export_bundle, make_programs

    bundle = load_bundle(options.bundle, with_programs=False)
    if options.inside:
        programs = make_programs(bundle)
        save_bundle(bundle.path, bundle.info, bundle.frontend, bundle.model, programs)
        size = (len(programs.spectrum) + len(programs.score)) / 1e6
        print(f'{bundle.path}: {size:.1f} MB of ONNX programs are inside')
        return
    out = options.out or Path(bundle.path.stem)
    if out.suffix in SUFFIXES.values():
        out = out.with_suffix('')
    formats = tuple(SUFFIXES) if options.format == 'both' else (options.format,)
    for path, difference in export_bundle(bundle, out, formats).items():
        print(f'{path}: differs from the bundle by at most {difference:.1e}')
