"""The loop in which everything acts: a policy and a world take turns until the task is over.

from openk2.rollout import rollout
trajectory = await rollout(policy, world, task, limits)
"""

from openk2.rollout.loop import rollout
from openk2.rollout.record import Recorder, recover
from openk2.rollout.replay import replay

__all__ = ["Recorder", "recover", "replay", "rollout"]
