"""Parameters that FSDP2's `fully_shard` has cut up: DTensors, of which a rank holds a piece.

FSDP cuts along the first dimension. A stack of experts so loses none of its matrices, and the rank that holds one can
orthogonalise it alone; of a single matrix every rank holds some rows, and it has to be put together first.

torch.distributed.tensor is only imported where there is a DTensor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from openk2.core import UserError


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor."""
    return hasattr(tensor, "device_mesh")


def local(tensor: Tensor) -> Tensor:
    """This rank's piece, sharing its memory; a plain tensor is its own."""
    return cast(Tensor, cast(Any, tensor).to_local()) if is_sharded(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor with all pieces, on every rank: a collective for a DTensor."""
    return cast(Tensor, cast(Any, tensor).full_tensor()) if is_sharded(tensor) else tensor


def piece(tensor: Tensor, like: Tensor) -> Tensor:
    """The part of a whole tensor that this rank holds of `like`, which has the same shape. No communication."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = cast(Any, like).device_mesh, cast(Any, like).placements
    return local(distribute_tensor(tensor, mesh, placements, src_data_rank=None))


def holds_whole_matrices(parameter: Tensor) -> bool:
    """Whether the pieces of a stack of matrices [N, rows, cols] are stacks themselves."""
    if not is_sharded(parameter) or parameter.ndim != 3:
        return False
    return all(place.is_replicate() or place.is_shard(0) for place in cast(Any, parameter).placements)


def groups_of(parameters: Iterable[Tensor]) -> list[dist.ProcessGroup]:
    """The process groups over which sharded parameters are spread, one for each dimension of their mesh, the one that
    they are cut along last; none for plain tensors. Raises UserError where they are not all sharded over one mesh."""
    parameters = list(parameters)
    if any(
        getattr(parameter, "_is_flat_param", False) or hasattr(parameter, "_fsdp_flattened") for parameter in parameters
    ):
        raise UserError(
            "the model is wrapped in FullyShardedDataParallel, whose flat parameters are no matrices: use fully_shard "
            "(FSDP2)"
        )
    meshes = [cast(Any, parameter).device_mesh for parameter in parameters if is_sharded(parameter)]
    if not meshes:
        return []
    if len(meshes) < len(parameters):
        raise UserError(
            "some parameters are sharded and some are not: call fully_shard on the whole model, without ignored_params"
        )
    if any(mesh != meshes[0] for mesh in meshes):
        raise UserError("the parameters are sharded over different meshes: MuonClip takes one mesh for all")
    return [meshes[0].get_group(dim) for dim in range(meshes[0].ndim)]


def total_norm(tensors: list[Tensor]) -> float:
    """The Euclidean norm of all of them together; a collective for DTensors."""
    return float(whole(torch.nn.utils.get_total_norm(tensors)))
