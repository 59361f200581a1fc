from .agent import Agent, ModelDefinition, ModelVersion
from .call import Call
from .draft import DraftDecision
from .evaluation import Case, Evaluation, Score, Suite
from .event import Event
from .memory import MemoryItem, MemoryUse
from .release import Release
from .retention import DeletedHistory, Retention
from .rollout import ReleaseMove, Rollout
from .run import Canary, Engine, Run, RunInput
from .step import Step
from .switch import Switch
from .undo import Undo
from .unknown import EffectClaim, Observation, UnknownWrite

__all__ = [
    "Agent",
    "Call",
    "Canary",
    "Case",
    "DeletedHistory",
    "DraftDecision",
    "EffectClaim",
    "Engine",
    "Evaluation",
    "Event",
    "MemoryItem",
    "MemoryUse",
    "ModelDefinition",
    "ModelVersion",
    "Observation",
    "Release",
    "ReleaseMove",
    "Retention",
    "Rollout",
    "Run",
    "RunInput",
    "Score",
    "Step",
    "Suite",
    "Switch",
    "Undo",
    "UnknownWrite",
]
