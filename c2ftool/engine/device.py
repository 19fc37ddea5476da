"""Where and how tensors are computed: device, ranks, precision, compilation, data parallelism.

Backbones are written for one device; what is applied from outside is applied here, in this order: move to the device,
let batch norms see all ranks, compile the blocks, wrap for data parallelism. Nothing else in c2ftool names CUDA,
autocast or DDP.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from c2ftool.engine.batch_norm import gather_batch_norms
from c2ftool.errors import C2FError, UsageError

Made = TypeVar("Made")


@dataclass(frozen=True)
class Device:
    """The place of one rank. precision: fp32, bf16 or fp16, decided."""

    torch: torch.device
    rank: int
    world: int
    precision: str
    compile: bool

    @property
    def main(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.rank == 0

    @property
    def cuda(self) -> bool:
        return self.torch.type == "cuda"

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which forward passes run."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.torch.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def exact(self) -> Device:
        """The same place in full precision, for what is computed once and kept."""
        return replace(self, precision="fp32", compile=False)

    def scaler(self) -> GradScaler:
        """A loss scaler; it does nothing unless the precision is fp16."""
        return GradScaler(self.torch.type, enabled=self.precision == "fp16")

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """The sum of a tensor over ranks, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def max_over_ranks(self, value: int) -> int:
        """The largest of an integer over ranks."""
        if self.world == 1:
            return value
        held = torch.tensor(value, device=self.torch)
        dist.all_reduce(held, op=dist.ReduceOp.MAX)
        return int(held.item())

    def gathered(
        self, places: NDArray[np.int64], values: Tensor | None, shape: Sequence[int] | None
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """(places, float32 values) of every rank, on every rank. A rank may have none in a round: values None.

        shape: of one value, where the rank knows it. To be called by all ranks alike.
        """
        if self.world == 1:
            assert values is not None
            return [(places, values.cpu().numpy())]
        known: list[Any] = [None] * self.world
        dist.all_gather_object(known, (places, None if shape is None else tuple(shape)))
        most, inner = max(len(where) for where, _ in known), next(s for _, s in known if s is not None)
        held = torch.zeros((most, *inner), device=self.torch)
        if values is not None:
            held[: len(values)] = values
        parts = [torch.empty_like(held) for _ in range(self.world)]
        dist.all_gather(parts, held)
        return [(where, part[: len(where)].cpu().numpy()) for (where, _), part in zip(known, parts, strict=True)]

    def from_main(self, make: Callable[[], Made]) -> Made:
        """What the first rank makes, on every rank; an error of its own is raised on all."""
        if self.world == 1:
            return make()
        held: list[Any] = [None, None]
        if self.main:
            try:
                held[0] = make()
            except C2FError as error:
                held[1] = error
        dist.broadcast_object_list(held, src=0, device=self.torch if self.cuda else None)
        if held[1] is not None:
            raise held[1]
        made: Made = held[0]
        return made

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()

    def forget_compiled(self) -> None:
        """Compile anew from here on: a run that is resumed behind a border has not seen the shapes before it."""
        if self.compile:
            torch._dynamo.reset()

    def name(self) -> str:
        """The device in words, for reports."""
        kind = torch.cuda.get_device_name(self.torch) if self.cuda else f"CPU, {torch.get_num_threads()} threads"
        return f"{self.world} x {kind}" if self.world > 1 else kind


def ranks() -> tuple[int, int, int]:
    """(rank, world, local rank) from torchrun's variables, or from a SLURM step of several tasks started by srun."""
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        return int(env["RANK"]), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", 0))
    # SLURM_STEP_NUM_TASKS, not SLURM_NTASKS: the batch script itself is a step of one task
    if int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in env:
        rank, world = int(env["SLURM_PROCID"]), int(env["SLURM_STEP_NUM_TASKS"])
        if "MASTER_ADDR" not in env or "MASTER_PORT" not in env:
            raise UsageError(
                "started by srun with several tasks, but MASTER_ADDR and MASTER_PORT are not set",
                cure="Export both in the batch script (see docs/cluster.md), or start with torchrun.",
            )
        env["RANK"], env["WORLD_SIZE"] = str(rank), str(world)
        return rank, world, int(env.get("SLURM_LOCALID", 0))
    return 0, 1, 0


def open_device(wanted: str | None, precision: str, compile_blocks: str) -> Device:
    """The device of this process; joins the other ranks where there are several.

    wanted: `cpu`, `cuda`, `cuda:1`; the GPU where there is one if not given. Raises UsageError for what is not there.
    """
    rank, world, local = ranks()
    if wanted is None:
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UsageError(f"unknown device {wanted!r}", cure="Write cpu, cuda or cuda:N.") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {wanted!r} is not supported", cure="Write cpu, cuda or cuda:N.")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        index = local if world > 1 else device.index or 0
        if index >= count:
            raise UsageError(f"device {wanted!r}, number {index}, is not there: {count} CUDA devices found")
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
        _deterministic_cuda()
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if precision == "auto":
        precision = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if device.type == "cuda" else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("train.precision fp16 needs a GPU", cure="Use train.precision=bf16 or fp32 on a CPU.")
    compiled = compile_blocks == "on" or (compile_blocks == "auto" and device.type == "cuda")
    return Device(device, rank, world, precision, compiled)


def _deterministic_cuda() -> None:
    """Ask for kernels that give the same bits each time: a resumed run must repeat the unbroken one."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.set_float32_matmul_precision("high")


def place(objective: nn.Module, device: Device) -> nn.Module:
    """The objective on its device, blocks compiled, wrapped for data parallelism."""
    objective.to(device.torch)
    if device.world > 1:
        gather_batch_norms(objective)
    if device.compile:
        # blocks of several shapes share one code: HTS-AT has four stages, shifted and not, in training and evaluation
        torch._dynamo.config.recompile_limit = 64
        for module in objective.modules():
            if type(module).__name__.endswith("Block"):
                module.compile()
    return wrapped(objective, device)


def wrapped(objective: nn.Module, device: Device) -> nn.Module:
    """The placed objective, wrapped for data parallelism where there are several ranks.

    To be called anew where parameters were replaced, with no reference to the former wrapper left: it takes its hooks
    off the parameters when it is collected.
    """
    if device.world == 1:
        return objective
    gc.collect()
    # buffers (running statistics, window masks) are those of the first rank, which are every rank's: the default
    return DistributedDataParallel(objective, device_ids=[device.torch.index] if device.cuda else None)


def close_device(device: Device) -> None:
    """Leave the group of ranks: a barrier first, or a rank that is quicker can abort the others.

    What data parallelism built holds on to the group by reference cycles, and must be gone before the group is: the
    threads of a group that is taken down at exit abort the process.
    """
    if device.world > 1 and dist.is_initialized():
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()
