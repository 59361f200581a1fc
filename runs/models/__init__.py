from .agent import Agent, ModelDefinition
from .call import Call
from .event import Event
from .release import Release
from .run import Canary, Engine, Run, RunInput
from .step import Step

__all__ = ["Agent", "Call", "Canary", "Engine", "Event", "ModelDefinition", "Release", "Run", "RunInput", "Step"]
