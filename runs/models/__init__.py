from .agent import Agent, ModelDefinition
from .call import Call
from .event import Event
from .release import Release
from .run import Canary, Engine, Run, RunInput
from .step import Step
from .unknown import EffectClaim, Observation, UnknownWrite

__all__ = [
    "Agent",
    "Call",
    "Canary",
    "EffectClaim",
    "Engine",
    "Event",
    "ModelDefinition",
    "Observation",
    "Release",
    "Run",
    "RunInput",
    "Step",
    "UnknownWrite",
]
