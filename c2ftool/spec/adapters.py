"""`adapters`: small trained parts beside a frozen body. Built by c2ftool/adapters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from c2ftool.spec.base import Section

Target = Literal["qkv", "proj", "fc1", "fc2"]
_NAME = r"^[A-Za-z][A-Za-z0-9_]*$"  # part of tensors' names
_FILE = "Start from a trained adapter of the same form: `run:NAME[@WHICH]`, or `file:FOLDER` as `c2f export` writes it."


class _Adapter(Section):
    """What every kind of adapter has."""

    name: str | None = Field(
        None,
        pattern=_NAME,
        description="Tells several apart, in files and, where it is given, in arguments; `a0`, `a1`, .. if not.",
    )
    blocks: Literal["all"] | list[int] = Field("all", description="The blocks that get one, counted from 0.")
    weights: str | None = Field(None, description=_FILE)

    @field_validator("weights")
    @classmethod
    def _form(cls, value: str | None) -> str | None:
        if value is not None and (value.partition(":")[0] not in ("run", "file") or not value.partition(":")[2]):
            raise ValueError(f"{value!r} names no adapter; write run:NAME[@WHICH] or file:FOLDER")
        return value

    @field_validator("blocks")
    @classmethod
    def _distinct(cls, value: Literal["all"] | list[int]) -> Literal["all"] | list[int]:
        if isinstance(value, list) and (not value or len(set(value)) < len(value) or min(value) < 0):
            raise ValueError("blocks are `all`, or different numbers from 0 on")
        return value


class _Beside(_Adapter):
    """A bottleneck beside a block's attention or MLP: down, activation, up; its output is added to theirs."""

    at: Literal["attention", "feed_forward", "both"] = Field(description="What it stands beside.")
    rank: int | None = Field(None, ge=1, description="Channels of the bottleneck. This, or `parameters`.")
    parameters: float | None = Field(
        None, gt=0, description="All that this item may have, over its blocks and places: the largest rank within."
    )
    scale: float = Field(1.0, description="Times its output.")
    activation: Literal["gelu", "relu"] = Field("gelu", description="Between down and up.")
    input: Literal["normed", "residual"] = Field(
        "normed",
        description="What it is given: what attention or MLP is given, or the residual stream before that norm.",
    )
    prefix: Literal["centre", "skip"] = Field(
        "centre",
        description="Tokens in front of the grid (CLS): each by the kernel's centre alone, as a map of one token; or "
        "left out.",
    )
    bias: bool = Field(False, description="Biases after down and up; the paper's counts are without.")


class Parallel(_Beside):
    """A parallel adapter (He et al., ICLR 2022; Yeo et al., 2025, eq. 1): every token by itself."""

    kind: Literal["parallel"]


class LookAside(_Beside):
    """A look-aside adapter (Yeo et al., 2025, eq. 2): down and up look at neighbours on the time-frequency grid."""

    kind: Literal["loaa"]
    axis: Literal["time", "frequency", "both"] = Field(description="Along which neighbours are looked at.")
    kernel: int = Field(3, ge=3, le=31, description="Tokens that a kernel spans; odd.")

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"a kernel has a centre: {value} is even")
        return value


class Lora(_Adapter):
    """Low-rank updates of linear layers (Hu et al., ICLR 2022); they can be merged into the weights."""

    kind: Literal["lora"]
    rank: int = Field(8, ge=1, description="Of the update.")
    alpha: float = Field(8.0, gt=0, description="The update is multiplied by alpha / rank.")
    rslora: bool = Field(False, description="By alpha / sqrt(rank) instead (Kalajdzievski, 2023).")
    targets: list[Target] = Field(
        ["qkv"],
        min_length=1,
        description="Layers of each block: queries, keys and values (of BEATs three layers), the attention's output, "
        "the MLP's first and second.",
    )

    @field_validator("targets")
    @classmethod
    def _distinct_targets(cls, value: list[Target]) -> list[Target]:
        if len(set(value)) < len(value):
            raise ValueError("a target is named twice")
        return value


Adapter = Annotated[Parallel | LookAside | Lora, Field(discriminator="kind")]


class Unfreeze(Section):
    """What of a frozen body learns all the same."""

    last: int = Field(0, ge=0, description="Blocks at the end, and the norm after them.")
    norms: bool = Field(False, description="The scales and offsets of every LayerNorm.")
    biases: bool = Field(False, description="Every bias (BitFit: Ben Zaken et al., ACL 2022).")


def kernel_of(item: Parallel | LookAside) -> tuple[int, int]:
    """(frequency, time) of the kernel."""
    if isinstance(item, Parallel):
        return 1, 1
    return (1 if item.axis == "time" else item.kernel), (1 if item.axis == "frequency" else item.kernel)


def per_rank(item: Parallel | LookAside, widths: list[int]) -> tuple[int, int]:
    """(parameters for each channel of the bottleneck, parameters beside) over the blocks, of these widths."""
    frequency, time = kernel_of(item)
    places = 2 if item.at == "both" else 1
    chosen = widths if item.blocks == "all" else [widths[block] for block in item.blocks]
    each = sum(2 * width * frequency * time + item.bias for width in chosen)
    return places * each, places * sum(chosen) if item.bias else 0


def decided(items: list[Parallel | LookAside | Lora], widths: list[int]) -> list[Parallel | LookAside | Lora]:
    """The items with name and rank, of a body whose blocks have these widths.

    Raises ValueError where `parameters` are less than a rank of 1 has.
    """
    out: list[Parallel | LookAside | Lora] = []
    for place, item in enumerate(items):
        changes: dict[str, object] = {"name": item.name or f"a{place}"}
        if not isinstance(item, Lora) and item.rank is None and item.parameters is not None:
            each, beside = per_rank(item, widths)
            rank = int((item.parameters - beside) // each)
            if rank < 1:
                raise ValueError(f"{item.parameters:g} parameters are less than a rank of 1 has: {each + beside:,}")
            changes["rank"] = rank
        out.append(item.model_copy(update=changes))
    return out


def words(item: Parallel | LookAside | Lora) -> str:
    """An item in a line, for plans and reports."""
    blocks = "" if item.blocks == "all" else f", blocks {', '.join(map(str, item.blocks))}"
    if isinstance(item, Lora):
        return f"lora, rank {item.rank}, of {', '.join(item.targets)}{blocks}"
    kernel = (
        "" if isinstance(item, Parallel) else f" over {_OVER[item.axis]}, kernel {'x'.join(map(str, kernel_of(item)))}"
    )
    beside = {"attention": "attention", "feed_forward": "the MLP", "both": "attention and MLP"}[item.at]
    return f"{item.kind}{kernel}, rank {item.rank}, beside {beside}{blocks}"


_OVER = {"time": "time", "frequency": "frequency", "both": "time and frequency"}
