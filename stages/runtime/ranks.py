"""Training in several processes, or on a GPU: DDP and ZeRO through accelerate."""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from stages.core.packed_loss import SupervisedLoss
from stages.core.packing import Pack
from stages.core.topology import STARTED, Rank
from stages.errors import InputError
from stages.runtime.training import Check, Done, Recipe, Work, clip, load_trained, save_trained

TIMEOUT = timedelta(hours=2)  # of one meeting of all processes


class Accelerated:
    """One GPU, DDP, or DeepSpeed's ZeRO."""

    dtype = torch.float32

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
        self.is_zero = strategy.startswith("zero")
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
        self.recipe, self.rank = recipe, rank
        if self.is_zero and recipe.is_bf16:  # whose optimizer keeps fp32 weights
            self.dtype = torch.bfloat16
        self.n_workers, self.mine = rank.world_size, slice(rank.rank, rank.rank + 1)
        self.is_main = rank.rank == 0
        check_joined(self._accelerator.num_processes, rank, self.device)

    def prepare(self, loss: SupervisedLoss) -> None:
        """Take the model on."""
        self.model, self.vocab_size = loss.model, loss.vocab_size
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
            with contextlib.nullcontext() if is_last or self.is_zero else self._accelerator.no_sync(self._module):
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

    def _backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        if self.is_zero:  # DeepSpeed would divide by the accumulated passes once more
            self._accelerator.deepspeed_engine_wrapped.backward(loss, sync_gradients=is_last, scale_wrt_gas=False)
        else:
            self._accelerator.backward(loss)

    def weights(self) -> dict[str, torch.Tensor] | None:
        """All weights under the names of the causal LM, with what was added to it; None but in the first process."""
        state = self._accelerator.get_state_dict(self._module)
        if not self.is_main:
            return None
        return {name.removeprefix("model."): weight.cpu() for name, weight in state.items()}

    def save(self, folder: Path) -> None:
        """Write what a run can go on from; every process its part."""
        if self.is_zero:
            self._module.save_checkpoint(str(folder), exclude_frozen_parameters=True)
        elif self.is_main:
            save_trained(self.model, self._optimizer, folder)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        if self.is_zero:
            self._module.load_checkpoint(str(folder), load_module_strict=False)
        else:
            load_trained(self.model, self._optimizer, folder)

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
