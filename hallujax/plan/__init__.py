"""What a configuration needs of accelerators that are not here: the command `hallujax plan`."""

from hallujax.plan.devices import ACCELERATORS, Machine, read_machine
from hallujax.plan.estimate import Plan, StagePlan, plan

__all__ = ["ACCELERATORS", "Machine", "Plan", "StagePlan", "plan", "read_machine"]
