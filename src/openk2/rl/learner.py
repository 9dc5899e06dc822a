"""One rank's part of an optimiser step: the policy objective, the PTX loss and the critic's lessons, by MuonClip.

    L = L_policy + ptx.weight L_ptx + critic.weight L_critic

L_ptx is the mean cross-entropy of what demonstrations say, L_critic that of the right one of two choices for each
comparison; both as large as their weights make them beside a policy loss of the order of a squared reward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openk2.core import UserError
from openk2.data.batches import IGNORED
from openk2.model import Transformer
from openk2.optim import WSD, MuonClip
from openk2.rl.objective import PolicyLoss, SaidLogprobs, Sample, micro_batches
from openk2.rl.recipe import RLRecipe
from openk2.rl.weights import WeightHandover
from openk2.train.precision import MixedPrecision
from openk2.train.ranks import Ranks
from openk2.train.trainer import LanguageLoss

Lesson = tuple[Sequence[int], Sequence[int]]
"""Ids, and for each position the id that should follow, or IGNORED."""


@dataclass(frozen=True, slots=True)
class Update:
    """What one step did. Losses are means over all ranks; a loss of nothing is None. `mismatch_max` is the largest
    difference between the sampler's log-prob of a token and the trainer's, `mismatch` the mean; None where nothing was
    sampled with the weights that the step began with."""

    loss: float | None
    ptx_loss: float | None
    critic_loss: float | None
    grad_norm: float
    max_logit: float
    clipped_heads: int
    mismatch_max: float | None
    mismatch: float | None


class ChoiceLoss(nn.Module):
    """The summed cross-entropy of the targets among `choices` alone, and how many there are.

    Among all ids nearly everything would be learned about the form of the answer: a model that was never asked to judge
    says neither A nor B, and a gradient that mends it drowns that of the policy.
    """

    def __init__(self, model: Transformer, choices: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.choices = list(choices)

    def forward(self, ids_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, int]:
        asked_BT = targets_BT != IGNORED
        x_ND = self.model.hidden(ids_BT)[asked_BT]
        logits_NC = (x_ND @ self.model.lm_head.weight[self.choices].T).float()
        choices_C = torch.tensor(self.choices, device=targets_BT.device)
        right_N = (targets_BT[asked_BT][:, None] == choices_C).int().argmax(1)
        return F.cross_entropy(logits_NC, right_N, reduction="sum"), len(right_N)


class Learner:
    """Holds the weights of one rank. All ranks call `update` equally often, and have the same weights.

    `choices` are the ids that a critic says.
    """

    def __init__(
        self,
        model: Transformer,
        recipe: RLRecipe,
        pad_id: int,
        ranks: Ranks,
        device: str = "cpu",
        choices: Sequence[int] = (),
        *,
        dtype: torch.dtype,
    ) -> None:
        config = recipe.objective
        self.model = model.to(device).train()
        self.config = config
        self.recipe = recipe
        self.pad_id = pad_id
        self.device = device
        self.ranks = ranks
        self.step = 0
        model.attach_monitor(config.qk_clip_threshold)
        self.optimizer = MuonClip(
            model,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            qk_clip_threshold=config.qk_clip_threshold,
            process_group=ranks.group,
        )
        self.schedule = WSD(lr=config.lr, steps=recipe.steps, warmup=min(config.warmup_steps, recipe.steps))
        self.precision = MixedPrecision(model, dtype)
        self.handover = WeightHandover(self.precision)
        self._policy_loss = PolicyLoss(model, config.tau)
        self._language_loss = LanguageLoss(model)
        self._choice_loss = ChoiceLoss(model, choices)

    def update(
        self, samples: Sequence[Sample], demonstrations: Sequence[Lesson], comparisons: Sequence[Lesson], *, first: bool
    ) -> Update | None:
        """One optimiser step on this rank's share; None, and no step, if no rank has anything to learn from.

        `first` says that the weights are still those of the iteration's start, so that the mismatch can be told. Fresh
        samples whose advantage is 0 then count in the mean and are not computed: their gradient is 0. Raises
        UserError when a loss is not finite, before anything changes.
        """
        supervised = sum(target != IGNORED for _, targets in demonstrations for target in targets)
        learnable = [sample for sample in samples if sample.advantage != 0 or not (first and sample.fresh)]
        counts = self.ranks.sum([len(samples), len(learnable), supervised, len(comparisons)])
        if not any(counts[1:]):
            return None
        self._first = True
        policy, mismatch = self._learn_policy(learnable, counts[0], first)
        ptx = self._learn(self._language_loss, demonstrations, self.recipe.ptx.weight / max(1.0, counts[2]))
        critic = self._learn(self._choice_loss, comparisons, self.recipe.critic.weight / max(1.0, counts[3]))
        if self._first:
            self.precision.grad_P.zero_()
        total = self.ranks.sum([policy, ptx, critic, mismatch[1], mismatch[2]])
        largest = self.ranks.max(mismatch[0])
        if not all(math.isfinite(value) for value in total):
            raise UserError(
                f"the loss is not finite at step {self.step + 1}: the policy has diverged; what was saved before is "
                "intact: lower objective.lr, or raise objective.tau, and start again from it"
            )
        self.ranks.add_up(self.precision.grad_P)
        for moe in self.model.moe_layers():
            self.ranks.add_up(moe.expert_counts_E)
        self.model.update_router_bias(self.config.router_bias_rate)
        self.optimizer.set_lr(self.schedule.at(self.step))
        stats = self.optimizer.step()
        self.precision.refresh()
        self.handover.publish()
        self.step += 1
        return Update(
            total[0] / counts[0] if counts[1] else None,
            total[1] / self.recipe.ptx.weight if counts[2] else None,
            total[2] / self.recipe.critic.weight if counts[3] else None,
            stats.grad_norm,
            stats.max_logit or 0.0,
            stats.clipped_heads,
            largest if total[4] else None,
            total[3] / total[4] if total[4] else None,
        )

    def _learn_policy(
        self, samples: Sequence[Sample], total: float, first: bool
    ) -> tuple[float, tuple[float, float, float]]:
        loss_sum, worst, gaps, tokens = 0.0, 0.0, 0.0, 0
        for batch in micro_batches(samples, self.config.micro_tokens):
            here = batch.to(self.device)
            loss, logprob_N = self.precision.call(self._policy_loss, here)
            self._backward(loss / total)
            loss_sum += loss.item()
            gap_N = (logprob_N - here.old_N).abs()[here.fresh_E[here.owner_N]]
            if first and len(gap_N):
                worst = max(worst, gap_N.max().item())
                gaps += gap_N.sum().item()
                tokens += len(gap_N)
        return loss_sum, (worst, gaps, float(tokens))

    def _learn(self, module: nn.Module, lessons: Sequence[Lesson], weight: float) -> float:
        """Add the gradient of `weight` times the summed cross-entropy, and return that loss."""
        loss_sum = 0.0
        if weight:
            for ids_BT, targets_BT in padded(lessons, self.config.micro_tokens, self.pad_id):
                loss, _ = self.precision.call(module, ids_BT.to(self.device), targets_BT.to(self.device))
                self._backward(loss * weight)
                loss_sum += loss.item() * weight
        return loss_sum

    def _backward(self, loss: Tensor) -> None:
        torch.autograd.backward(loss)
        self.precision.take_gradients(self._first)
        self._first = False

    @torch.no_grad()
    def mean_loss(self, lessons: Sequence[Lesson]) -> float:
        """The mean cross-entropy of the supervised ids, over all ranks; each has its share of `lessons`."""
        self.model.eval()
        total, count = 0.0, 0
        for ids_BT, targets_BT in padded(lessons, self.config.micro_tokens, self.pad_id):
            loss, n = self.precision.call(self._language_loss, ids_BT.to(self.device), targets_BT.to(self.device))
            total, count = total + loss.item(), count + n
        self.model.train()
        summed = self.ranks.sum([total, count])
        return summed[0] / max(1.0, summed[1])

    @torch.no_grad()
    def divergence(self, samples: Sequence[Sample], other: Mapping[str, Tensor]) -> float | None:
        """KL(this policy, the one with the weights `other`) in nats a token, over what was sampled; None of nothing.

        The estimate is that of Schulman (2020), exp(d) - 1 - d with d = log other - log this: never negative.
        """
        model = self.handover.model
        total, count = 0.0, 0
        for batch in micro_batches(samples, self.config.micro_tokens):
            here = batch.to(self.device)
            targets = here.ids_T, here.targets_T, here.branches
            module = SaidLogprobs(model)
            this_N = module(*targets)
            weights = {f"model.{name}": tensor for name, tensor in other.items()}
            gap_N = torch.func.functional_call(module, weights, targets) - this_N
            total += (gap_N.exp() - 1 - gap_N).sum().item()
            count += len(gap_N)
        summed = self.ranks.sum([total, count])
        return summed[0] / summed[1] if summed[1] else None


def padded(lessons: Sequence[Lesson], micro_tokens: int, pad_id: int) -> list[tuple[Tensor, Tensor]]:
    """Lessons of similar length together, padded on the right, about `micro_tokens` ids each."""
    ordered = sorted(lessons, key=lambda lesson: -len(lesson[0]))
    batches: list[tuple[Tensor, Tensor]] = []
    while ordered:
        width = len(ordered[0][0])
        taken, ordered = ordered[: max(1, micro_tokens // width)], ordered[max(1, micro_tokens // width) :]
        ids = [[*i, *[pad_id] * (width - len(i))] for i, _ in taken]
        targets = [[*t, *[IGNORED] * (width - len(t))] for _, t in taken]
        batches.append((torch.tensor(ids), torch.tensor(targets)))
    return batches
