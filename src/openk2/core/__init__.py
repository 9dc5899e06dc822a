"""The ground floor: messages, tool specs, the policy and world protocols, trajectories, errors, run folders."""

from openk2.core.errors import ContextOverflow, UserError
from openk2.core.messages import NANO_SYSTEM, Message, ToolCall, ToolSpec, as_messages, as_tools, compact_json
from openk2.core.protocols import (
    Demonstration,
    Family,
    FinishReason,
    Limits,
    Policy,
    Seeded,
    Shaped,
    Split,
    Task,
    ToolResult,
    Turn,
    Usage,
    Verdict,
    World,
)
from openk2.core.trajectory import Event, Halt, OnEvent, Step, Trajectory

__all__ = [
    "NANO_SYSTEM",
    "ContextOverflow",
    "Demonstration",
    "Event",
    "Family",
    "FinishReason",
    "Halt",
    "Limits",
    "Message",
    "OnEvent",
    "Policy",
    "Seeded",
    "Shaped",
    "Split",
    "Step",
    "Task",
    "ToolCall",
    "ToolResult",
    "ToolSpec",
    "Trajectory",
    "Turn",
    "Usage",
    "UserError",
    "Verdict",
    "World",
    "as_messages",
    "as_tools",
    "compact_json",
]
