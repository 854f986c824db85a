"""Count the expressions for sound in which no emotion is meant."""

import argparse
import json

from ser_ros import SerError
from ser_ros.commands.arguments import device_argument, path_of, reading, sound_arguments
from ser_ros.files import printable


def configure(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `false-expressions`."""
    parser = commands.add_parser(
        'false-expressions',
        parents=[device_argument(), sound_arguments()],
        help='count the expressions for sound in which no emotion is meant',
        description='Stream sound in which no emotion is meant, such as spoken orders or household '
        'machines, and print for each folder how many expressions a robot would receive in an '
        'hour: those other than neutral ("emotions"), and all.',
    )
    parser.add_argument(
        'folders', nargs='*', type=path_of, metavar='FOLDER', help='folder of sound files'
    )
    parser.add_argument(
        '--television',
        action='store_true',
        help='also as if a television in the room played each folder: by a small loudspeaker, 3 m '
        'away, with music',
    )
    parser.add_argument(
        '--babble', action='store_true', help='also with five files of each folder at once'
    )
    parser.add_argument(
        '--generated',
        action='store_true',
        help='also ten minutes of each kind of generated sound: music, babble, hum, sirens, …',
    )
    parser.add_argument('--bundle', default='', help='default: the shipped one')
    parser.add_argument(
        '--held-out',
        action='store_true',
        help='only every third recording of each folder: those that a training with this folder '
        'of noise leaves out',
    )
    parser.add_argument('--json', action='store_true', help='print all metrics as JSON')
    parser.add_argument(
        '--record', action='store_true', help='store the metrics in the bundle and write its card'
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the metrics of each folder, record them if requested; 1 if a file was not readable."""
    from ser_ros.bundle import load_bundle
    from ser_ros.stream.recognizer import Recognizer
    from ser_ros.stream.torch_backend import select_device
    from ser_ros.training.data.noise import list_sounds, split_recordings
    from ser_ros.training.data.nonspeech import FAMILIES, HELD_OUT
    from ser_ros.training.evaluation.background import DESCRIPTIONS, background
    from ser_ros.training.evaluation.false_expressions import (
        GENERATED,
        count_expressions,
        count_for_generated,
        protocol,
    )
    from ser_ros.training.reports.card import FALSE_EXPRESSIONS, record_metrics
    from ser_ros.training.reports.formatting import (
        FALSE_EXPRESSIONS_HEADER,
        false_expression_rows,
        text_table,
    )

    if not options.folders and not options.generated:
        raise SerError('name a folder of sound files, or --generated')
    how = reading(options)
    sounds = {}
    for folder in options.folders:
        name, paths = printable(folder.resolve().name), list_sounds(folder, 'folder')
        if options.held_out:
            name, paths = f'{name} (held out)', split_recordings(paths)[1]
        if not paths:
            raise SerError(f'folder {folder} has fewer than three recordings: omit --held-out')
        if name in sounds:
            raise SerError(f'two folders are called {folder.resolve().name}: rename one of them')
        sounds[name] = paths, None
        for kind in DESCRIPTIONS:
            if getattr(options, kind):
                sounds[f'{name}, {kind}'] = paths, background(kind, paths, how)
    bundle = load_bundle(options.bundle)
    device = str(select_device(options.device))
    # One recogniser for each row: nothing is carried from one to the next.
    rows = {
        name: count_expressions(Recognizer(bundle, device), paths, how, degrade)
        for name, (paths, degrade) in sounds.items()
    }
    if options.generated:
        for family in (*FAMILIES, *HELD_OUT):
            name = f'{family.__name__.replace("_", " ")} {GENERATED}'
            rows[name] = count_for_generated(Recognizer(bundle, device), family)
    metrics = {'protocol': protocol(rows), 'rows': rows}
    if options.record:
        recorded = bundle.info.metrics.get(FALSE_EXPRESSIONS, {'rows': {}})['rows']
        all_rows = {**recorded, **rows}
        record_metrics(
            bundle, {FALSE_EXPRESSIONS: {'protocol': protocol(all_rows), 'rows': all_rows}}
        )
    is_complete = all(rows[name]['files'] == len(paths) for name, (paths, _) in sounds.items())
    if options.json:
        print(json.dumps(metrics))
    else:
        print(f'protocol: {metrics["protocol"]}; brackets: 95 % Poisson interval')
        for line in text_table(FALSE_EXPRESSIONS_HEADER, false_expression_rows(metrics)):
            print(line)
    return int(not is_complete)
