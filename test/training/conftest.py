"""What the tests of the workshop share."""

import pytest


@pytest.fixture(scope='session', autouse=True)
def evaluate_few_sounds(few_sounds):
    """For all tests of this folder; others need not import the workshop."""
