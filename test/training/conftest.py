"""What the tests of the workshop share."""

import pytest


@pytest.fixture(scope='session', autouse=True)
def evaluate_shortly(short_evaluations):
    """For all tests of this folder; others need not import the workshop."""
