"""The commands of `python -m ser_ros`, one in each module.

Each has `configure(commands)`, which adds its parser, and `run(options)`, which may return an exit
status. Heavy modules are imported by `run`, so that `--help` is quick.
"""

COMMANDS = (
    'corpus',
    'models',
    'train',
    'cross_validate',
    'learning_curve',
    'calibrate',
    'evaluate',
    'false_expressions',
    'enroll',
    'predict',
    'inspect',
    'listen',
    'view',
    'export',
    'results',
    'devices',
)
"""Modules of this package, in the order of `--help`."""
