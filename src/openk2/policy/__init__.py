"""Who answers: a local model, an endpoint, a script."""

from openk2.policy.local import LocalPolicy
from openk2.policy.resolve import resolve_policy
from openk2.policy.scripted import ScriptedPolicy

__all__ = ["LocalPolicy", "ScriptedPolicy", "resolve_policy"]
