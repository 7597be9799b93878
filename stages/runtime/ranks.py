"""Training in several processes, or on a GPU: DDP and ZeRO through accelerate, FSDP2 as PyTorch has it.

(accelerate has FSDP2 for accelerators alone, so it could not be held against one process on CPU.)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_shards
from torch.distributed.checkpoint.state_dict_saver import save as save_shards
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from stages.common.errors import InputError
from stages.core.packed_loss import SupervisedLoss
from stages.core.packing import Pack
from stages.core.topology import STARTED, Rank
from stages.runtime.machine import peak_bytes
from stages.runtime.model import load_model
from stages.runtime.training import Check, Done, Recipe, Work, clip, load_trained, moments_to_come, save_trained

TIMEOUT = timedelta(hours=2)  # of one meeting of all processes


class Accelerated:
    """One GPU, DDP, DeepSpeed's ZeRO, or FSDP2."""

    dtype = torch.float32  # of the weights that are trained
    _module: Any
    _optimizer: Any

    def __init__(self, strategy: str, recipe: Recipe, rank: Rank) -> None:
        """Join the other processes. Before the model is loaded: ZeRO-3 shards it as it is read.

        Raises:
            InputError: fewer processes joined than were started.
        """
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

        has_gpu = torch.cuda.is_available()
        handlers: list[Any] = [DistributedDataParallelKwargs(gradient_as_bucket_view=True)]
        plugin = None
        self.is_zero, self.is_fsdp = strategy.startswith("zero"), strategy == "fsdp2"
        if self.is_zero:
            plugin = _deepspeed(strategy, recipe)
        # Others wait while the first process writes a candidate. accelerate finds no backend for DeepSpeed on CPU, and
        # would believe in one process.
        backend = {"backend": "gloo"} if self.is_zero and not has_gpu else {}
        handlers.append(InitProcessGroupKwargs(timeout=TIMEOUT, **backend))
        self._accelerator = Accelerator(
            cpu=not has_gpu and not self.is_zero,
            mixed_precision="bf16" if recipe.is_bf16 else "no",
            deepspeed_plugin=plugin,
            kwargs_handlers=handlers,
        )
        self.device = self._accelerator.device
        self.recipe, self.rank, self.strategy, self._plugin = recipe, rank, strategy, plugin
        self.held_before = peak_bytes()
        if self.is_zero and recipe.is_bf16:  # whose optimizer keeps fp32 weights
            self.dtype = torch.bfloat16
        self.n_workers, self.mine = rank.world_size, slice(rank.rank, rank.rank + 1)
        self.is_main = rank.rank == 0
        check_joined(self._accelerator.num_processes, rank, self.device)

    def read(self, folder: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401
        """Load a base without as many copies of it in a host's memory as there are processes.

        Onto a GPU weight by weight. ZeRO-3 and FSDP2 share the weights out from the first process, so the others read
        none. ZeRO in bf16 starts from bf16 weights.
        """
        load = partial(load_model, folder, dtype=str(dtype).removeprefix("torch."))
        if self.is_fsdp:
            return _read_by_first(load, is_first=self.rank.local_rank == 0)
        if self.strategy.startswith("zero3"):
            return load()
        return load(where={"device_map": {"": self.device}})

    def prepare(self, loss: SupervisedLoss) -> None:
        """Take the model on."""
        self.model, self.vocab_size = loss.model, loss.vocab_size
        if self.is_fsdp:
            self._module = _fully_sharded(loss, self.device, is_bf16=self.recipe.is_bf16)
            self._optimizer = self.recipe.optimizer(loss.model)
            return
        self._module, self._optimizer = self._accelerator.prepare(loss, self.recipe.optimizer(loss.model))

    def close(self) -> None:
        """Leave the other processes."""
        self._accelerator.end_training()

    def take(self, work: Work, check: Check) -> Done:
        """Carry out one step; as `Threads.take`."""
        (packs,) = work.packs
        total = torch.zeros((), device=self.device)
        for group in self._optimizer.param_groups:
            group["lr"] = work.lr
        loss = norm = 0.0
        for i, (pack, n_parts) in enumerate(zip(packs, work.n_parts, strict=True)):
            is_last = i == len(packs) - 1
            is_summed = is_last or self.is_zero or self.is_fsdp  # over the processes; shards of a sum take less room
            with contextlib.nullcontext() if is_summed else self._accelerator.no_sync(self._module):
                summed = self._module(on_device(pack, self.device), n_parts, (work.seed, work.step))
                total += summed.detach()
                if is_last:
                    loss = summed_up(total, self.rank) / work.n_tokens
                    if self.is_zero:  # which steps within the backward pass
                        check(loss, 0.0)
                # Gradients are averaged over the processes.
                self._backward(summed * (self.rank.world_size / work.n_tokens), is_last=is_last)
        if self.is_zero:
            norm = float(self._module.get_global_grad_norm())
            check(loss, norm)
        else:
            norm = clip(self._module, self.recipe.max_grad_norm)
            check(loss, norm)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        return Done(loss, norm)

    def rehearse(self, work: Work) -> None:
        """A step's forward and backward pass, which changes nothing.

        The loss counts zero times: the gradients that ZeRO adds up until a step, and keeps to itself, stay zero.
        """
        (packs,) = work.packs
        for pack, n_parts in zip(packs, work.n_parts, strict=True):
            summed = self._module(on_device(pack, self.device), n_parts, (work.seed, work.step))
            self._backward(summed * 0.0, is_last=False)
        if not self.is_zero:
            self._optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def moments_to_come(self) -> int:
        """Bytes that the optimizer takes with the first step and not before; ZeRO has them from the start."""
        return 0 if self.is_zero else moments_to_come(getattr(self._optimizer, "optimizer", self._optimizer))

    @contextlib.contextmanager
    def plainly(self) -> Iterator[None]:
        """Where models load as they do in a process that does not train: ZeRO-3 would shard them, in every process."""
        if self._plugin is None:
            yield
            return
        from transformers.integrations import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()
        try:
            yield
        finally:
            self._plugin.set_deepspeed_weakref()

    def _backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        if self.is_zero:  # DeepSpeed would divide by the accumulated passes once more
            self._accelerator.deepspeed_engine_wrapped.backward(loss, sync_gradients=is_last, scale_wrt_gas=False)
        else:
            self._accelerator.backward(loss)

    def weights(self) -> dict[str, torch.Tensor] | None:
        """All weights under the names of the causal LM, with what was added to it; None but in the first process."""
        if self.is_fsdp:
            options = StateDictOptions(full_state_dict=True, cpu_offload=True)
            state: dict[str, Any] = get_model_state_dict(self._module, options=options)
        else:
            state = self._accelerator.get_state_dict(self._module)
        if not self.is_main:
            return None
        return {name.removeprefix("model."): weight.cpu() for name, weight in state.items()}

    def save(self, folder: Path) -> None:
        """Write what a run can go on from; every process its part."""
        if self.is_zero:
            self._module.save_checkpoint(str(folder), exclude_frozen_parameters=True)
        elif self.is_fsdp:
            save_shards(self._shards(), checkpoint_id=folder / "shards")
        elif self.is_main:
            save_trained(self.model, self._optimizer, folder)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        if self.is_zero:
            self._module.load_checkpoint(str(folder), load_module_strict=False)
        elif self.is_fsdp:
            shards = self._shards()
            load_shards(shards, checkpoint_id=folder / "shards")
            options = StateDictOptions(strict=False)  # what is frozen is not there
            set_state_dict(
                self._module, self._optimizer, model_state_dict=shards["weights"],
                optim_state_dict=shards["optimizer"], options=options,
            )  # fmt: skip
        else:
            load_trained(self.model, self._optimizer, folder)

    def _shards(self) -> dict[str, Any]:
        """What this process holds of the trained weights and of the optimizer."""
        options = StateDictOptions(ignore_frozen_params=True)
        weights, optimizer = get_state_dict(self._module, self._optimizer, options=options)
        return {"weights": weights, "optimizer": optimizer}

    def same(self, number: int) -> bool:
        """Whether all processes have the same number."""
        if self.rank.world_size == 1:
            return True
        ends = torch.tensor([number, -number], dtype=torch.float64, device=self.device)
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        return bool(ends[0] == -ends[1])

    def agree(self, wish: bool) -> bool:
        """What the first process wishes."""
        return summed_up(torch.tensor(float(wish and self.is_main), device=self.device), self.rank) > 0

    def wait(self) -> None:
        """Until every process is here."""
        self._accelerator.wait_for_everyone()


def _read_by_first(load: Callable[..., Any], *, is_first: bool) -> Any:  # noqa: ANN401
    """In the first process of a host load a model; in the others make one without memory, whose weights are to come."""
    asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}  # makes buffers everywhere
    os.environ.update(asked)
    try:
        model = load(where={"device_map": {"": "cpu" if is_first else "meta"}})
    finally:
        for name in asked:
            del os.environ[name]
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if weight.is_meta:
                setattr(module, name, torch.nn.Parameter(torch.empty_like(weight, device="cpu")))
    model.tie_weights()
    return model


def _fully_sharded(loss: SupervisedLoss, device: torch.device, *, is_bf16: bool) -> SupervisedLoss:
    """Shard a model's weights over all processes, block by block, with those of the first.

    Blocks are gathered for their passes; embeddings, head and the last norm stay gathered from the forward pass to the
    end of the backward pass. fp32 weights and sums of gradients, bf16 in the passes.
    """
    whole = loss.state_dict() if dist.get_rank() == 0 else {}
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    dtypes = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if is_bf16 else MixedPrecisionPolicy()
    for block in getattr(loss.model.get_decoder(), "layers", ()):
        fully_shard(block, mesh=mesh, mp_policy=dtypes)
    fully_shard(loss, mesh=mesh, mp_policy=dtypes)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(loss, whole, options=options)
    return loss


def _deepspeed(strategy: str, recipe: Recipe) -> Any:  # noqa: ANN401 - accelerate's DeepSpeedPlugin
    """ZeRO's configuration, without a value that accelerate would have to guess."""
    has_gpu = torch.cuda.is_available()
    if not has_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    from accelerate.utils import DeepSpeedPlugin
    from deepspeed.utils.logging import set_log_level_from_string

    set_log_level_from_string("error")
    if not has_gpu:  # a compiler would be needed for it
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    zero: dict[str, Any] = {
        "stage": 2 if strategy == "zero2" else 3,
        "overlap_comm": has_gpu,
        "contiguous_gradients": True,
        "stage3_gather_16bit_weights_on_model_save": True,
    }
    if strategy == "zero3-offload":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": has_gpu}
    config = {
        "zero_optimization": zero,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": recipe.max_grad_norm or 0.0,
        "bf16": {"enabled": recipe.is_bf16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": has_gpu,  # which is compiled when it is first used
        "steps_per_print": 2**31,
    }
    return DeepSpeedPlugin(hf_ds_config=config, zero3_init_flag=zero["stage"] == 3)


def check_joined(n_joined: int, rank: Rank, device: torch.device) -> None:
    """Count the processes that joined, and see that they can speak with each other.

    Raises:
        InputError: they are not as many as were started.
    """
    n_started = int(os.environ.get(STARTED, rank.world_size))
    n_heard = int(summed_up(torch.ones((), device=device), rank))
    if not n_joined == n_heard == rank.world_size == n_started:
        raise InputError(
            f"sft: {n_started} processes were started, {min(n_joined, n_heard, rank.world_size)} train together; "
            "look for one that ended early, or for a launcher's variables left in the environment"
        )


def summed_up(number: torch.Tensor, rank: Rank) -> float:
    """The sum of a number over all processes."""
    if rank.world_size > 1 and dist.is_initialized():
        dist.all_reduce(number)
    return float(number)


def on_device(pack: Pack, device: torch.device) -> Pack:
    """A pack on a device; an empty one becomes a token without a loss, as all processes compute at once."""
    if not pack.examples:
        nothing = torch.zeros(0, dtype=torch.long)
        token = torch.zeros(1, 1, dtype=torch.long)
        pack = Pack((0,), (1,), token, token, nothing, nothing)
    moved = (tensor.to(device, non_blocking=True) for tensor in pack[2:])
    return Pack(pack.examples, pack.lengths, *moved)
