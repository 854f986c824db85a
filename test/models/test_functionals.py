import torch

from ser_ros.models import functionals


def test_correlations_are_those_of_numpy_in_frames_that_count():
    torch.manual_seed(0)
    values, weights = torch.randn(2, 4, 30), torch.ones(2, 30)
    weights[1, 20:] = 0.0
    values[1, :, 20:] = 100.0
    found = functionals._correlations(values, weights)
    first, second = torch.triu_indices(4, 4, 1)
    for row, n in zip((0, 1), (30, 20)):
        expected = torch.corrcoef(values[row, :, :n])[first, second]
        torch.testing.assert_close(found[row], expected)


def test_what_does_not_vary_correlates_with_nothing():
    values = torch.stack((torch.full((10,), 3.0), torch.arange(10.0)))[None]
    assert functionals._correlations(values, torch.ones(1, 10)).abs().max() < 1e-4
    assert functionals._correlations(values, torch.zeros(1, 10)).isfinite().all()
