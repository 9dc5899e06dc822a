"""K2's policy objective (K2 report, section 3.2.3; Kimi k1.5, section 2.3.2), plain and fast.

    L = mean over tasks x and their K samples y of  (r(x, y) - mean r(x) - tau log(pi(y | x) / pi_old(y | x)))^2

`log pi(y | x)` is that of the whole sequence: the sum over all tokens that the policy said, in every turn of the
episode; what the user and the tools said is not in it. `pi_old` is who sampled, by the log-probs noted then. The
gradient pulls a sample's log-prob up as far as its reward is above the mean of its group, and no further than
(r - mean r) / tau from where it was.

Shapes: E episodes, S sequences, T time, N tokens that the policy said, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openk2.data.batches import IGNORED
from openk2.model import Transformer, kernels
from openk2.rl.episodes import TokenSequence


@dataclass(frozen=True, slots=True)
class Sample:
    """One episode to learn from: all its ids, and r - mean r. `fresh` says that all was sampled by the present weights,
    so that the trainer's log-probs should be the sampler's."""

    sequences: tuple[TokenSequence, ...]
    advantage: float
    fresh: bool = True

    @property
    def old_logprob(self) -> float:
        """log pi_old of the whole episode."""
        return sum(p for s in self.sequences for p, said in zip(s.logprobs, s.said, strict=True) if said)

    @property
    def longest(self) -> int:
        return max(len(sequence.ids) for sequence in self.sequences)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Some episodes, padded on the right.

    `targets_ST[s, t]` is the id that follows `ids_ST[s, t]` if the policy said it, else IGNORED; `owner_N` is the
    episode of each target in reading order, `old_N` its log-prob under pi_old, `fresh_E` as `Sample.fresh`.
    """

    ids_ST: Tensor
    targets_ST: Tensor
    owner_N: Tensor
    old_N: Tensor
    old_E: Tensor
    advantage_E: Tensor
    fresh_E: Tensor

    def to(self, device: str) -> MicroBatch:
        return MicroBatch(*(getattr(self, name).to(device) for name in self.__slots__))


def micro_batches(samples: Sequence[Sample], micro_tokens: int, pad_id: int) -> Iterator[MicroBatch]:
    """Episodes of similar length together, about `micro_tokens` padded ids each; no episode is divided."""
    ordered = sorted(samples, key=lambda sample: -sample.longest)
    taken: list[Sample] = []
    rows = 0
    for sample in ordered:
        if taken and (rows + len(sample.sequences)) * taken[0].longest > micro_tokens:
            yield _padded(taken, pad_id)
            taken, rows = [], 0
        taken.append(sample)
        rows += len(sample.sequences)
    if taken:
        yield _padded(taken, pad_id)


def _padded(samples: Sequence[Sample], pad_id: int) -> MicroBatch:
    width = max(sample.longest for sample in samples) - 1
    ids: list[list[int]] = []
    targets: list[list[int]] = []
    owners: list[int] = []
    old: list[float] = []
    for episode, sample in enumerate(samples):
        for sequence in sample.sequences:
            row = list(sequence.ids)
            following = [i if said else IGNORED for i, said in zip(row[1:], sequence.said[1:], strict=True)]
            said_here = [p for p, said in zip(sequence.logprobs[1:], sequence.said[1:], strict=True) if said]
            padding = width - len(following)
            ids.append(row[:-1] + [pad_id] * padding)
            targets.append(following + [IGNORED] * padding)
            owners += [episode] * len(said_here)
            old += said_here
    return MicroBatch(
        torch.tensor(ids),
        torch.tensor(targets),
        torch.tensor(owners, dtype=torch.long),
        torch.tensor(old),
        torch.tensor([sample.old_logprob for sample in samples]),
        torch.tensor([sample.advantage for sample in samples]),
        torch.tensor([sample.fresh for sample in samples]),
    )


def said_logprobs(model: Transformer, ids_ST: Tensor, targets_ST: Tensor) -> Tensor:
    """log pi of every target that is not IGNORED, in reading order [N]; the head runs only there."""
    place_N = (targets_ST.flatten() != IGNORED).nonzero().flatten()
    x_ND = model.hidden(ids_ST).flatten(0, 1).index_select(0, place_N)
    return kernels.token_logprobs(x_ND, model.lm_head.weight, targets_ST.flatten().index_select(0, place_N))


class SaidLogprobs(nn.Module):
    """`said_logprobs` as a forward, so that it can be called with other weights than the model's own."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_ST: Tensor, targets_ST: Tensor) -> Tensor:
        return said_logprobs(self.model, ids_ST, targets_ST)


class PolicyLoss(nn.Module):
    """The summed objective of a micro-batch."""

    def __init__(self, model: Transformer, tau: float) -> None:
        super().__init__()
        self.model = model
        self.tau = tau

    def forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """The sum over episodes (scalar), and log pi of each token that the policy said [N], without gradient."""
        logprob_N = said_logprobs(self.model, batch.ids_ST, batch.targets_ST)
        logprob_E = torch.zeros_like(batch.old_E).index_add(0, batch.owner_N, logprob_N)
        loss_E = (batch.advantage_E - self.tau * (logprob_E - batch.old_E)).square()
        return loss_E.sum(), logprob_N.detach()


def reference_objective(
    model: nn.Module, groups: Sequence[tuple[Sequence[Sequence[TokenSequence]], Sequence[float]]], tau: float
) -> Tensor:
    """The objective as it is written, one sequence at a time: `groups` are (the K episodes' sequences, their rewards).

    `model` gives logits [1, T, V] of ids [1, T]. Slow; what `PolicyLoss` is tested against.
    """
    terms: list[Tensor] = []
    for episodes, rewards in groups:
        mean = sum(rewards) / len(rewards)
        for sequences, reward in zip(episodes, rewards, strict=True):
            log_ratio = torch.zeros((), dtype=next(model.parameters()).dtype)
            for sequence in sequences:
                logits_TV = model(torch.tensor([sequence.ids]))[0]
                for t in range(1, len(sequence.ids)):
                    if sequence.said[t]:
                        logprobs_V = logits_TV[t - 1].log_softmax(-1)
                        log_ratio = log_ratio + logprobs_V[sequence.ids[t]] - sequence.logprobs[t]
            terms.append((reward - mean - tau * log_ratio) ** 2)
    return torch.stack(terms).mean()
