"""Models that are described by a file from elsewhere: no more is built than its tensors are."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from ser_ros import SerError

CALLS_PER_TENSOR, MORE_CALLS = 16, 1_000
ELEMENTS_PER_ELEMENT, MORE_ELEMENTS = 8, 2**20
"""What building a model may take, for each tensor and element of its state, and besides that. The
architectures here take up to 11 calls and 3 elements, and small ones make tables besides."""


class SizeLimit(TorchFunctionMode):
    """While it is active, building a model that has more than these tensors ends with SerError.

    Together with `torch.device('meta')` nothing is allocated. Without this limit alone the layers
    of an endless model would be counted one by one until memory ends.
    """

    def __init__(self, tensors: Mapping[str, Tensor]):
        super().__init__()
        n_elements = sum(tensor.numel() for tensor in tensors.values())
        self._calls = CALLS_PER_TENSOR * len(tensors) + MORE_CALLS
        self._elements = ELEMENTS_PER_ELEMENT * n_elements + MORE_ELEMENTS

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, and count what it makes."""
        result = func(*args, **(kwargs or {}))
        self._calls -= 1
        if isinstance(result, Tensor) and not any(result is argument for argument in args):
            self._elements -= result.numel()
        if self._calls < 0 or self._elements < 0:
            raise SerError('the model that the metadata describes is larger than its weights')
        return result
