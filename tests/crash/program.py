"""Program: the common part of the explorations' programs that are told what they may rely on."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from walsvc.api import Log
from walsvc.disk.sim import SimDevice

from .plan import Plan

ToldT = TypeVar("ToldT")


class Program(ABC, Generic[ToldT]):
    """One program on one device, with a seed of its own kind.

    Attributes:
        plan, device, steps: as it was started.
        told: what the log has answered it so far.
        number: of its last record.
    """

    kind: ClassVar[str]

    def __init__(self, plan: Plan, device: SimDevice, told: ToldT, steps: int) -> None:
        self.plan, self.device, self.told, self.steps = plan, device, told, steps
        self.rng = random.Random(f"{plan.seed} {self.kind}")
        self.number = 0
        self.log: Log

    @abstractmethod
    async def run(self) -> None:
        """Open the log, work for `steps` steps, and close it."""
