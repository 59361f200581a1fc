from .agent import Agent, ModelDefinition
from .call import Call
from .draft import DraftDecision
from .event import Event
from .release import Release
from .run import Canary, Engine, Run, RunInput
from .step import Step
from .switch import Switch
from .undo import Undo
from .unknown import EffectClaim, Observation, UnknownWrite

__all__ = [
    "Agent",
    "Call",
    "Canary",
    "DraftDecision",
    "EffectClaim",
    "Engine",
    "Event",
    "ModelDefinition",
    "Observation",
    "Release",
    "Run",
    "RunInput",
    "Step",
    "Switch",
    "Undo",
    "UnknownWrite",
]
