"""How new weights reach the engine that samples.

On one machine trainer and engine share memory, and nothing is copied: the engine's parameters are the very tensors that
the trainer computes with. For an engine elsewhere a subclass overrides `publish`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from openk2.model import Transformer
from openk2.model.checkpoint import hf_state_dict
from openk2.train.precision import MixedPrecision


class WeightHandover:
    """The hand-over. `version` counts what was published; an engine samples with one version at a time.

    The trainer calls `publish` when its weights have changed and no request is under way. What a remote engine needs:

    - `tensors()` gives every tensor under its Hugging Face name, one after the other, so that they can be sent and
      loaded as they come (K2 report, appendix G: the whole set to every worker, parameter by parameter);
    - requests that begin after `publish` has returned must be sampled with the new weights, and the log-probs that
      come with their ids must be those of the new weights;
    - nothing cached under the old weights may be used under the new ones.
    """

    def __init__(self, precision: MixedPrecision) -> None:
        self.version = 0
        self.model = _sharing(precision)
        """The model that samples, in evaluation mode."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of everything that was published last."""
        yield from hf_state_dict(self.model).items()

    def publish(self) -> None:
        """The weights have changed."""
        self.version += 1


def _sharing(precision: MixedPrecision) -> Transformer:
    """A model whose parameters and router biases are those that `precision` computes with, not copies of them."""
    with torch.device("meta"):
        model = Transformer(precision.model.config)
    shared = {name: tensor.detach() for name, tensor in precision.working.items()}
    persistent = precision.model.state_dict(keep_vars=True)
    model.load_state_dict({name: shared.get(name, tensor) for name, tensor in persistent.items()}, assign=True)
    for moe in model.moe_layers():
        moe.expert_counts_E = torch.zeros_like(moe.expert_counts_E, device=model.lm_head.weight.device)
    return model.requires_grad_(False).eval()
