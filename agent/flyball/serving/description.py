"""What the protocol says about a ladder: metadata, configuration, statistics, index. Pure.

Ladder (interface, status, totals) -> Structs in the shapes of Open Inference Protocol v2 and of Triton's extensions

A ladder is a model of that protocol, and all of its rungs look the same from outside.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flyball.ports import Ladder, LadderStatus, LadderTotals, PublicTensor

PLATFORM = "flyball"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")


class ServerMetadata(msgspec.Struct, frozen=True):
    name: str
    version: str
    extensions: tuple[str, ...] = EXTENSIONS


class TensorForm(msgspec.Struct, frozen=True):
    datatype: str
    shape: tuple[int, ...]


class TensorMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """`alternative` is Flyball's own: another datatype and shape that are taken under this name."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    alternative: TensorForm | None = None


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    versions: tuple[str, ...]
    platform: str = PLATFORM
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class ConfigTensor(msgspec.Struct, frozen=True):
    name: str
    data_type: str
    dims: tuple[int, ...]


class TransactionPolicy(msgspec.Struct, frozen=True):
    decoupled: bool = False


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The part of Triton's ModelConfig that clients read. `max_batch_size` 0: shapes are as the metadata has them."""

    name: str
    platform: str = PLATFORM
    backend: str = PLATFORM
    max_batch_size: int = 0
    input: tuple[ConfigTensor, ...]
    output: tuple[ConfigTensor, ...]
    instance_group: tuple[str, ...] = ()
    default_model_filename: str = ""
    parameters: dict[str, str] = {}
    model_transaction_policy: TransactionPolicy = TransactionPolicy()


class Duration(msgspec.Struct, frozen=True, omit_defaults=True):
    count: int
    ns: int | None = None


class InferenceStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """`fail` has a count and no `ns`: how long failed requests took is not kept, and no data is not zero."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration = Duration(0, 0)
    cache_miss: Duration = Duration(0, 0)


class ModelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    batch_stats: tuple[str, ...] = ()


class AllStatistics(msgspec.Struct, frozen=True):
    model_stats: tuple[ModelStatistics, ...]


class IndexEntry(msgspec.Struct, frozen=True):
    name: str
    version: str
    state: str
    reason: str


def metadata(ladder: Ladder) -> ModelMetadata:
    return ModelMetadata(
        name=ladder.name,
        versions=(ladder.version,),
        inputs=tuple(map(_tensor, ladder.interface.inputs)),
        outputs=tuple(map(_tensor, ladder.interface.outputs)),
    )


def _tensor(public: PublicTensor) -> TensorMetadata:
    alternative = None if public.alternative is None else TensorForm(*public.alternative)
    return TensorMetadata(public.name, public.datatype, public.shape, alternative)


def config(ladder: Ladder) -> ModelConfig:
    return ModelConfig(
        name=ladder.name,
        input=tuple(map(_config_tensor, ladder.interface.inputs)),
        output=tuple(map(_config_tensor, ladder.interface.outputs)),
    )


def _config_tensor(public: PublicTensor) -> ConfigTensor:
    datatype = "STRING" if public.datatype == "BYTES" else public.datatype
    return ConfigTensor(public.name, f"TYPE_{datatype}", public.shape)


def statistics(ladders: Sequence[Ladder]) -> AllStatistics:
    return AllStatistics(tuple(_statistics(ladder, ladder.totals()) for ladder in ladders))


def _statistics(ladder: Ladder, totals: LadderTotals) -> ModelStatistics:
    count = totals.success
    return ModelStatistics(
        name=ladder.name,
        version=ladder.version,
        inference_count=count,
        execution_count=totals.executions,
        inference_stats=InferenceStatistics(
            success=Duration(count, totals.request_ns),
            fail=Duration(sum(totals.failure.values())),
            queue=Duration(count, totals.queue_ns),
            compute_input=Duration(count, totals.pre_ns),
            compute_infer=Duration(count, totals.run_ns),
            compute_output=Duration(count, totals.post_ns),
        ),
    )


def answers(status: LadderStatus) -> bool:
    """Whether the ladder has a rung that answers: what "ready" means, for one ladder and for the server."""
    return status.active is not None and status.state in ("ready", "degraded")


def index(ladders: Sequence[Ladder], ready_only: bool) -> list[IndexEntry]:
    entries = [_index_entry(ladder.status()) for ladder in ladders]
    return [e for e in entries if e.state == "READY" or not ready_only]


def _index_entry(status: LadderStatus) -> IndexEntry:
    state = "READY" if answers(status) else "LOADING" if status.state == "loading" else "UNAVAILABLE"
    return IndexEntry(status.name, status.version, state, status.error)
