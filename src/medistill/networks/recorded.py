"""Functions of tensors recorded once as a CUDA graph and replayed: one launch instead of hundreds.

On a GPU a small network spends its time being told what to do: a student step on 28 px images launches a few hundred
kernels that take microseconds each. A recording holds them all. It belongs to the shapes it was made with and to fixed
places in memory, so arguments are copied in and results copied out.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medistill.networks.convnet import ConvNet
from medistill.networks.flat import Alignment, Slope
from medistill.shapes import Images, Params, Targets

_WARM_UP_CALLS = 3  # the compiler, and libraries that choose their algorithms, settle before anything is recorded

_Function = Callable[..., tuple[Tensor, ...]]


class RecordedConvNet(ConvNet):
    """A ConvNet whose derivatives are recorded for every shape of batch they meet; nothing is kept between the two."""

    def slope(self, params: Params, images: Images, targets: Targets, batch_size: int, keep: bool = False) -> Slope:
        """See `FlatNetwork.slope`."""
        return Slope(self._recorded[0](params, images, targets, constant=batch_size)[0])

    def alignment(
        self, params: Params, images: Images, targets: Targets, batch_size: int, direction: Params, kept: Any = None
    ) -> Alignment:
        """See `FlatNetwork.alignment`."""
        return Alignment(*self._recorded[1](params, images, targets, direction, constant=batch_size))

    @functools.cached_property
    def _recorded(self) -> tuple["_Recorder", "_Recorder"]:
        # They never run at once, and what each leaves behind is copied out: one pool of memory serves both.
        pool = torch.cuda.graph_pool_handle()
        return _Recorder(self._slope, pool), _Recorder(self._alignment, pool)

    def _slope(self, params: Params, images: Images, targets: Targets, batch_size: int) -> tuple[Tensor]:
        return (super().slope(params, images, targets, batch_size).params,)

    def _alignment(
        self, params: Params, images: Images, targets: Targets, direction: Params, batch_size: int
    ) -> tuple[Tensor, ...]:
        found = super().alignment(params, images, targets, batch_size, direction)
        return found.value, found.params, found.images, found.targets


class _Recorder:
    """A function of tensors and of one plain value, recorded for every shape it meets.

    Args:
        function: without side effects; it must not wait for the GPU.
        pool: the memory that its recordings share.
    """

    def __init__(self, function: _Function, pool: Any) -> None:
        self._function, self._pool = function, pool
        self._recordings: dict[Hashable, _Recording] = {}

    def __call__(self, *tensors: Tensor, constant: Hashable) -> tuple[Tensor, ...]:
        key = (constant, *((tensor.shape, tensor.dtype) for tensor in tensors))
        if key not in self._recordings:
            self._recordings[key] = self._record(tensors, constant)
        return self._recordings[key].replayed(tensors)

    def _record(self, tensors: tuple[Tensor, ...], constant: Hashable) -> "_Recording":
        places = tuple(tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in tensors)
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP_CALLS):
                self._function(*places, constant)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            results = self._function(*places, constant)
        return _Recording(graph, places, results)


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    places: tuple[Tensor, ...]
    results: tuple[Tensor, ...]

    def replayed(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for place, tensor in zip(self.places, tensors, strict=True):
            place.copy_(tensor)
        self.graph.replay()
        return tuple(result.clone() for result in self.results)
