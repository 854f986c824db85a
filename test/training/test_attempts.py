"""Runs of which some fail."""

import pytest
from filelock import Timeout

from ser_ros import SerError
from ser_ros.training.attempts import Attempts


def failing(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    ('error', 'reason'),
    [(SerError('the loss is not finite'), 'the loss is not finite'), (OSError(5), 'OSError: 5')],
)
def test_a_failure_is_printed_before_the_next_run_begins(capsys, error, reason):
    attempts, seen = Attempts(), []
    attempts.attempt('fold1', failing(error))
    attempts.attempt('fold2', lambda: seen.append(capsys.readouterr()))
    assert seen[0].out == ''
    assert seen[0].err.endswith(f'ser_ros: fold1: {reason}\n')
    assert attempts.failures == {'fold1': reason}


def test_a_run_of_another_process_is_no_failure(capsys):
    attempts = Attempts()
    attempts.attempt('fold1', failing(Timeout('fold1.lock')))
    assert (attempts.failures, attempts.elsewhere) == ({}, ['fold1'])
    assert capsys.readouterr().err == ''
