"""training_cost: what a training run takes in memory, disk and time, from the model's shape and our own settings.

N is the number of weights, W the processes. Bytes of each process for weights, gradients and AdamW's state:

    single, ddp       bf16: 4 N fp32 weights + 4 N gradients + 8 N moments + 2 N bf16 copies; fp32: 16 N
    zero2             2 N bf16 weights + (2 gradients + 12 master weights and moments) N / W
    zero3             (2 + 2 + 12) N / W, and the weights of a few blocks while they compute
    zero3-offload     (2 + 2) N / W on the device, 16 N / (processes of a host) in host memory

(Rajbhandari et al. 2020, "ZeRO", section 3, with 2 bytes more a weight where autocast keeps copies.) In fp32 the
sharded ones count 4 bytes where bf16 has 2 and no master copy. With LoRA N is the number of the weights that it trains,
and those of the base come to it, 2 bytes each in bf16, 4 in fp32; zero3 and zero3-offload shard them.

Activations, bytes a token of a block of width h with MLP width i, from what our packed forward pass keeps: two norms
in fp32 (24 h), inputs of the linear maps in 16 bits (10 h), queries, keys and values before and after the rotation and
the attended values (12 h), masks of residual dropout (2 h), the residual (2 h), the MLP's four products (8 i). With
gradient checkpointing a block keeps its fp32 input, 4 h, and one block at a time the rest. Twice that in fp32. Logits
are three copies of one chunk in fp32, with LoRA four.

Floating point operations a token: 6 for each weight but the input embeddings, and for causal attention over an example
of s tokens 6 s (heads x head size) a block (Chowdhery et al. 2022, "PaLM", appendix B, halved as half is masked). With
LoRA 4 for each weight, as those of the base get no gradient, and 6 for each of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

STRATEGIES = ("single", "ddp", "zero2", "zero3", "zero3-offload")
GIB = 2**30
LOGITS_COPIES = 3  # logits, their softmax, its gradient
OVERHEAD_BYTES = 2 * GIB  # CUDA context, workspaces, communication buffers
FILL = 0.92  # of a device's memory that may be planned for; the rest is lost to fragments


class Card(NamedTuple):
    """A kind of accelerator."""

    peak_flops: float  # a second, dense, bf16 with fp32 sums (the maker's data sheet)
    memory_bytes: int


CARDS = {
    "H200": Card(989.4e12, 141 * 10**9),
    "H100": Card(989.4e12, 80 * GIB),
    "B200": Card(2250e12, 180 * 10**9),
    "A100": Card(312e12, 80 * GIB),
    "L4": Card(121e12, 24 * GIB),
    "RTX 4090": Card(165.2e12, 24 * GIB),
}


def peak_flops(device_name: str) -> float | None:
    """Peak of a device by the name that its driver gives; None for one that the table lacks.

    >>> peak_flops("NVIDIA H100 80GB HBM3"), peak_flops("NVIDIA L40S")
    (989400000000000.0, None)
    """
    words = f" {device_name.replace('-', ' ')} "
    if "H100 PCIe" in device_name:
        return 756e12
    return next((card.peak_flops for name, card in CARDS.items() if f" {name} " in words), None)


class Shape(NamedTuple):
    """A LLaMA-like model."""

    n_layers: int
    hidden_size: int
    intermediate_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    tied: bool

    @property
    def n_embedding(self) -> int:
        """Weights of the input embeddings."""
        return self.vocab_size * self.hidden_size

    @property
    def n_layer(self) -> int:
        """Weights of one block."""
        attention = self.hidden_size * self.head_dim * 2 * (self.n_heads + self.n_kv_heads)
        return attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size

    @property
    def n_weights(self) -> int:
        """All weights."""
        return self.n_embedding * (1 if self.tied else 2) + self.n_layers * self.n_layer + self.hidden_size


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Read the shape from a model's config.json.

    Raises:
        KeyError: it has no size that a LLaMA-like model has.
    """
    n_heads = config["num_attention_heads"]
    return Shape(
        n_layers=config["num_hidden_layers"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        n_heads=n_heads,
        n_kv_heads=config.get("num_key_value_heads") or n_heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // n_heads,
        vocab_size=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
    )


class Setting(NamedTuple):
    """What of the recipe decides its cost."""

    is_bf16: bool
    micro_batch_tokens: int
    gradient_checkpointing: bool
    has_moments: bool = True  # AdamW's; SGD has none
    rank: int | None = None  # LoRA's; None: all weights are trained


def n_low_rank(shape: Shape, rank: int) -> int:
    """Weights that LoRA trains: A and B of each linear map of the blocks, and the EOT's rows."""
    h, attended = shape.hidden_size, shape.head_dim * (2 * shape.n_heads + 2 * shape.n_kv_heads)
    sides = 4 * h + attended + 3 * (h + shape.intermediate_size)
    return shape.n_layers * rank * sides + h * (1 if shape.tied else 2)


class Memory(NamedTuple):
    """Bytes of one process, and of a host."""

    state: int  # weights, gradients, optimizer
    gathered: int  # weights of other processes while they are computed with
    activations: int
    logits: int
    host: int  # of all processes of a host, where state is kept there

    @property
    def device(self) -> int:
        """All that is on the device."""
        return self.state + self.gathered + self.activations + self.logits


def memory(shape: Shape, setting: Setting, strategy: str, *, n_processes: int, n_on_host: int) -> Memory:
    """Estimate what one process needs; the formulas stand at the top of this module."""
    element = 2 if setting.is_bf16 else 4
    if setting.rank is None:
        n, frozen = shape.n_weights, 0
    else:
        n, frozen = n_low_rank(shape, setting.rank), element * shape.n_weights
    moments = 8 if setting.has_moments else 0
    sharded = moments + (4 if setting.is_bf16 else 0)  # and master weights
    gathered = host = 0
    if strategy in ("single", "ddp"):
        state = frozen + (8 + moments + (2 if setting.is_bf16 else 0)) * n
    elif strategy == "zero2":
        state = frozen + element * n + (element + sharded) * n // n_processes
    elif strategy == "zero3-offload":
        state = (frozen + 2 * element * n) // n_processes
        host = (sharded + 4) * n * n_on_host // n_processes
    else:
        state = (frozen + (2 * element + sharded) * n) // n_processes
    if strategy in ("zero3", "zero3-offload"):
        gathered = element * (2 * shape.n_layer + shape.n_embedding * (1 if shape.tied else 2))
    h, i = shape.hidden_size, shape.intermediate_size
    scale = 1 if setting.is_bf16 else 2
    block = (50 * h + 8 * i) * scale
    blocks = shape.n_layers * 4 * h + block if setting.gradient_checkpointing else shape.n_layers * block
    copies = LOGITS_COPIES + (setting.rank is not None)
    logits = copies * min(2**28, 4 * setting.micro_batch_tokens * shape.vocab_size)
    return Memory(state, gathered, setting.micro_batch_tokens * blocks, logits, host)


def fits(needed: Memory, *, device_bytes: int, host_bytes: int) -> bool:
    """Whether a process, and all those of its host, have room."""
    return needed.device + OVERHEAD_BYTES <= FILL * device_bytes and needed.host <= FILL * host_bytes


def choose(
    shape: Shape, setting: Setting, *, n_processes: int, n_on_host: int, device_bytes: int, host_bytes: int
) -> str | None:
    """The first strategy that fits, the least communication first; None if none does."""
    if n_processes == 1:
        candidates: tuple[str, ...] = ("single", "zero3-offload")
    else:
        candidates = ("ddp", "zero2", "zero3", "zero3-offload")
    for strategy in candidates:
        needed = memory(shape, setting, strategy, n_processes=n_processes, n_on_host=n_on_host)
        if fits(needed, device_bytes=device_bytes, host_bytes=host_bytes):
            return strategy
    return None


def flops(shape: Shape, lengths: Sequence[int], *, rank: int | None = None) -> float:
    """Of a forward and backward pass over examples of these lengths, each attending to itself; recomputation is none.

    Args:
        shape: of the model.
        lengths: tokens.
        rank: LoRA's; None: all weights are trained.

    >>> llama_8b = Shape(32, 4096, 14336, 32, 8, 128, 128256, False)
    >>> round(flops(llama_8b, [2048]) / 2048 / 1e9, 1)
    46.6
    """
    weights = shape.n_weights - (0 if shape.tied else shape.n_embedding)
    of_weights = 6 * weights if rank is None else 4 * weights + 6 * n_low_rank(shape, rank)
    attention = shape.n_layers * shape.n_heads * shape.head_dim
    return float(sum(of_weights * length + 6 * attention * length * length for length in lengths))


class Disk(NamedTuple):
    """Bytes."""

    candidates: int  # the candidate epochs
    state: int  # what a run resumes from: the newest, and the next while it is written


def disk(shape: Shape, setting: Setting, *, n_candidates: int) -> Disk:
    """Estimate what a run writes."""
    element = 2 if setting.is_bf16 else 4
    n = shape.n_weights if setting.rank is None else n_low_rank(shape, setting.rank)
    state = (4 + (8 if setting.has_moments else 0)) * n
    return Disk(n_candidates * element * shape.n_weights, 2 * state)
