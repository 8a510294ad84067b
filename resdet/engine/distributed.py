"""Runs one process among several (torchrun): its rank, and the values on which all processes must agree."""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # the common base of BatchNorm2d and SyncBatchNorm

from resdet.config import TrainConfig
from resdet.engine.machine import check_bf16, unusable_driver
from resdet.engine.peers import Peer, Peers
from resdet.errors import UserError
from resdet.models.classifier import Classifier
from resdet.models.rcnn import RCNN
from resdet.structures import Batch

T = TypeVar("T")
MISTAKE = 2  # the exit code of a UserError
# The argument that leaves each process its running statistics in the forward pass; newer torch warns of the old name.
OWN_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(nn.parallel.DistributedDataParallel).parameters
)


@dataclass(frozen=True)
class World:
    """This process and the number of processes. Values are exchanged over gloo on the CPU, without a wait for a GPU;
    tensors where they are.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:  # noqa: FBT001  # the name of the call says what the flag is
        """Whether `flag` is true in any process; every process must call this."""
        return self.ask_any(flag)()

    def ask_any(self, flag: bool) -> Callable[[], bool]:  # noqa: FBT001  # as any
        """Asks all processes as `any`, and returns at once; the answer is what the returned function waits for."""
        if self.size == 1:
            return lambda: flag
        votes = torch.tensor(float(flag))
        work = dist.all_reduce(votes, op=dist.ReduceOp.MAX, async_op=True)
        assert work is not None

        def answer() -> bool:
            _ = work.wait()
            return votes.item() > 0

        return answer

    def mean(self, values: Sequence[float]) -> list[float]:
        """Each value's mean over the processes; a NaN anywhere is a NaN everywhere."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return (sums / self.size).tolist()

    def mean_there(self, values: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
        """As `mean`, of a tensor on its device, which is not waited for."""
        if self.size == 1:
            return values
        sums = values.double()
        dist.all_reduce(sums)
        return sums / self.size

    def raise_together(self, problem: UserError | None) -> None:
        """Raises UserError in every process if `problem` is one in any; in all but one it ends the process silently."""
        problems = [each for each in self.gather(None if problem is None else str(problem)) if each is not None]
        if problems:
            raise UserError(problems[0]) if self.leads else SystemExit(MISTAKE)

    def gather(self, value: T) -> list[T]:
        """The value of every process, by rank, on every process."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # pyright: ignore[reportReturnType]

    def from_lead(self, value: T) -> T:
        """Rank 0's value, on every process."""
        if self.size == 1:
            return value
        box: list[T] = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def is_lead() -> bool:
    """Whether this is the only process, or the first that torchrun started; for code outside `join_world`."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """Joins the processes that torchrun started; without torchrun there is one process.

    `device` is train.device. All processes leave the block together. The group is destroyed only after a normal end:
    after an error the other processes may not respond. Raises UserError, in one process of a machine, if another
    process has died.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", "0")))
    if choose_device(device, world).type == "cuda":
        torch.cuda.set_device(world.local_rank)
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    peers = Peers(world.gather(Peer.here()), world.rank)
    with peers.watched():
        yield world
        _ = world.any(flag=False)  # whoever is ready first waits: a process that has ended counts as dead
    dist.destroy_process_group()


def choose_device(name: str, world: World) -> torch.device:
    """`auto` is a GPU if there is one; each process on a machine uses its own GPU."""
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not available):
        return torch.device("cpu")
    if not available:
        driver = unusable_driver()
        why = f": {driver}, or use" if driver else "; use"
        raise UserError(f"train.device=cuda, but torch sees no CUDA device{why} train.device=cpu or auto")
    if world.local_rank >= available:
        raise UserError(
            f"process {world.local_rank} of this machine has no GPU of its own ({available} seen);"
            f" start torchrun with --nproc-per-node={available}"
        )
    if importlib.util.find_spec("triton") is None:
        raise UserError(
            "NMS on a GPU needs triton, which this Python lacks; install it (torch for CUDA brings it on Linux), or use"
            " train.device=cpu"
        )
    return torch.device("cuda", world.local_rank)


class SharedLosses(nn.Module):
    """The losses of a model whose batch is divided among processes: their mean over the processes is the loss of the
    whole batch. The batch of a process may be divided once more: then it is the mean of the sums over the parts.
    """

    def __init__(self, model: RCNN | Classifier, processes: int) -> None:
        super().__init__()
        self.model = model
        self.processes = processes

    def forward(self, batch: Batch, counts: Int64[Tensor, " L"] | None = None) -> dict[str, Float[Tensor, ""]]:
        """Every process must call this. All numbers of entries are added up at once, on the device, which is not
        waited for. `counts` are these numbers, if they are known.
        """
        losses = self.model.mean_losses(batch)
        if counts is None:
            counts = torch.stack([loss.count for loss in losses.values()])
            dist.all_reduce(counts)
        whole = zip(losses.items(), counts.unbind(), strict=True)
        return {name: loss.over(count, shares=self.processes) for (name, loss), count in whole}


def trainable(model: RCNN | Classifier, train: TrainConfig, world: World) -> nn.Module:
    """The losses of the model in training mode, shared by several processes and compiled, as `train` requires.

    The backward pass averages gradients over the processes. Buffers are not sent around in the forward pass (see
    `average_statistics`), and every trainable parameter has a gradient for every batch, even an empty one, so there is
    no search for unused parameters: the graph is the same in each step, except that torch does not support that with
    the parts of train.accumulate, and torch.compile finds its own. Gradients are views of what is sent.
    """
    losses_of: nn.Module = model.train()
    if world.size > 1 or train.accumulate > 1:
        losses_of = SharedLosses(model, world.size)
    if world.size > 1:
        static = train.accumulate == 1 and not train.compile
        options: dict[str, bool] = {"gradient_as_bucket_view": True, "static_graph": static, OWN_BUFFERS: False}
        losses_of = nn.parallel.DistributedDataParallel(losses_of, **options)  # pyright: ignore[reportArgumentType]
    return torch.compile(losses_of, mode=train.compile_mode) if train.compile else losses_of  # pyright: ignore[reportReturnType]


def whole(value: Any) -> Any:
    """A tensor or a container of tensors with the whole tensor in place of each shard; every process must call this."""
    if isinstance(value, dict):
        return {name: whole(each) for name, each in value.items()}
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The layers with running statistics; frozen layers are not included."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


@torch.no_grad()
def average_statistics(model: nn.Module, world: World) -> None:
    """Replaces running means and variances by their means over the processes, each of which saw another share of the
    batch. So all processes have the same model after every update, whether or not it is saved or evaluated then.

    Synchronized batch norms have the same statistics everywhere already.
    """
    if world.size == 1:
        return
    norms = [norm for norm in batch_norms(model) if not isinstance(norm, nn.SyncBatchNorm)]
    statistics = [values for norm in norms for values in (norm.running_mean, norm.running_var) if values is not None]
    if not statistics:
        return
    together = torch.cat(statistics)
    dist.all_reduce(together)
    together /= world.size
    for values, mean in zip(statistics, together.split([len(values) for values in statistics]), strict=True):
        _ = values.copy_(mean)


def to_device(batch: Batch, train: TrainConfig, device: torch.device) -> Batch:
    """Copies the batch to the model's device, with the images in the model's memory format."""
    batch = batch.to(device, non_blocking=True)
    return replace(batch, images=batch.images.contiguous(memory_format=memory_format(train)))


def memory_format(train: TrainConfig) -> torch.memory_format:
    """The memory format of images and weights. Training decides an open one before; elsewhere it is channels_last."""
    return torch.contiguous_format if train.channels_last is False else torch.channels_last


def autocast(train: TrainConfig, device: torch.device) -> torch.autocast:
    """Matrix products in the precision that train.amp requires."""
    half = half_precision(train, device)
    return torch.autocast(device.type, dtype=half or torch.bfloat16, enabled=half is not None)


def half_precision(train: TrainConfig, device: torch.device) -> torch.dtype | None:
    """`auto` uses bfloat16 on a GPU, `native` also on a CPU with instructions for it; None: all in float32.

    Raises UserError for a GPU that has no bfloat16 products.
    """
    if train.amp == "fp16":
        return torch.float16
    on_gpu = device.type == "cuda"
    wanted = {"off": False, "bf16": True, "auto": on_gpu, "native": on_gpu or cpu_multiplies_bf16()}
    if not wanted[train.amp]:
        return None
    check_bf16(device)
    return torch.bfloat16


def cpu_multiplies_bf16() -> bool:
    """Whether the processor has instructions for bfloat16 products; other processors emulate them, slower
    than float32.
    """
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
