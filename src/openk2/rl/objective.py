"""K2's policy objective (K2 report, section 3.2.3; Kimi k1.5, section 2.3.2), plain and fast.

    L = mean over tasks x and their K samples y of  (r(x, y) - mean r(x) - tau log(pi(y | x) / pi_old(y | x)))^2

`log pi(y | x)` is that of the whole sequence: the sum over all tokens that the policy said, in every turn of the
episode; what the user and the tools said is not in it. `pi_old` is who sampled, by the log-probs noted then. The
gradient pulls a sample's log-prob up as far as its reward is above the mean of its group, and no further than
(r - mean r) / tau from where it was.

The samples of a task share their prompt, and most of an episode's ids are the prompt: it is computed once for all.

Shapes: E episodes, T ids of one row, N tokens that the policy said, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from openk2.data.batches import IGNORED
from openk2.model import Branches, Transformer, kernels
from openk2.rl.episodes import TokenSequence


@dataclass(frozen=True, slots=True)
class Sample:
    """One episode to learn from: all its ids, and r - mean r.

    Samples of one `group` begin alike. `fresh` says that all was sampled by the present weights, so that the trainer's
    log-probs should be the sampler's.
    """

    sequences: tuple[TokenSequence, ...]
    advantage: float
    group: int = 0
    fresh: bool = True

    @property
    def old_logprob(self) -> float:
        """log pi_old of the whole episode."""
        return sum(p for s in self.sequences for p, said in zip(s.logprobs, s.said, strict=True) if said)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Episodes that begin alike, in one row: their common prompt once, then what each sequence goes on with.

    `targets_T[t]` is the id that follows `ids_T[t]` if the policy said it, else IGNORED; `owner_N` is the episode of
    each target in reading order, `old_N` its log-prob under pi_old, `fresh_E` as `Sample.fresh`.
    """

    branches: Branches
    ids_T: Tensor
    targets_T: Tensor
    owner_N: Tensor
    old_N: Tensor
    old_E: Tensor
    advantage_E: Tensor
    fresh_E: Tensor

    def to(self, device: str) -> MicroBatch:
        tensors = (getattr(self, name).to(device) for name in self.__slots__ if name != "branches")
        return MicroBatch(self.branches, *tensors)


def micro_batches(samples: Sequence[Sample], micro_tokens: int) -> Iterator[MicroBatch]:
    """Samples of a group together, as many as have about `micro_tokens` ids; no episode is divided."""
    for _, group in groupby(samples, key=lambda sample: sample.group):
        members = list(group)
        stem = _stem([sequence for sample in members for sequence in sample.sequences])
        taken: list[Sample] = []
        size = stem
        for sample in members:
            own = sum(len(sequence.ids) - 1 - stem for sequence in sample.sequences)
            if taken and size + own > micro_tokens:
                yield _in_one_row(taken, stem)
                taken, size = [], stem
            taken.append(sample)
            size += own
        yield _in_one_row(taken, stem)


def _stem(sequences: Sequence[TokenSequence]) -> int:
    """How many ids all begin with before anything follows that the policy said: what follows the stem's last id is no
    target, as it would be that of several samples."""
    first, *others = (sequence.ids for sequence in sequences)
    alike = min((_shared(first, other) for other in others), default=len(first))
    said = min(sequence.said.index(True) for sequence in sequences)
    return max(0, min(alike, said) - 1)


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _in_one_row(samples: Sequence[Sample], stem: int) -> MicroBatch:
    ids = list(samples[0].sequences[0].ids[:stem])
    targets = [IGNORED] * stem
    lengths: list[int] = []
    owners: list[int] = []
    old: list[float] = []
    for episode, sample in enumerate(samples):
        for sequence in sample.sequences:
            pairs = list(zip(sequence.ids[stem + 1 :], sequence.said[stem + 1 :], strict=True))
            ids += sequence.ids[stem:-1]
            targets += [i if said else IGNORED for i, said in pairs]
            lengths.append(len(pairs))
            here = [p for p, said in zip(sequence.logprobs, sequence.said, strict=True) if said]
            owners += [episode] * len(here)
            old += here
    return MicroBatch(
        Branches(stem, tuple(lengths)),
        torch.tensor(ids),
        torch.tensor(targets),
        torch.tensor(owners, dtype=torch.long),
        torch.tensor(old),
        torch.tensor([sample.old_logprob for sample in samples]),
        torch.tensor([sample.advantage for sample in samples]),
        torch.tensor([sample.fresh for sample in samples]),
    )


def said_logprobs(model: Transformer, ids_T: Tensor, targets_T: Tensor, branches: Branches) -> Tensor:
    """log pi of every target that is not IGNORED, in reading order [N]; the head runs only there."""
    place_N = (targets_T != IGNORED).nonzero().flatten()
    x_ND = model.hidden_of_branches(ids_T, branches).index_select(0, place_N)
    return kernels.token_logprobs(x_ND, model.lm_head.weight, targets_T.index_select(0, place_N))


class SaidLogprobs(nn.Module):
    """`said_logprobs` as a forward, so that it can be called with other weights than the model's own."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_T: Tensor, targets_T: Tensor, branches: Branches) -> Tensor:
        return said_logprobs(self.model, ids_T, targets_T, branches)


class PolicyLoss(nn.Module):
    """The summed objective of a micro-batch."""

    def __init__(self, model: Transformer, tau: float) -> None:
        super().__init__()
        self.model = model
        self.tau = tau

    def forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """The sum over episodes (scalar), and log pi of each token that the policy said [N], without gradient."""
        logprob_N = said_logprobs(self.model, batch.ids_T, batch.targets_T, batch.branches)
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
