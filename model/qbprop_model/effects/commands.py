"""Commands to jobs: each kind of job has its own answers (semantics 6.4)."""

from qbprop_model.effects.dispatch import effect
from qbprop_model.effects.jobs import command_backup
from qbprop_model.effects.mirrors import command_mirror
from qbprop_model.operations import JobCommand
from qbprop_model.state import Outcome, State


@effect.register
def _(op: JobCommand, world: State) -> Outcome:
    return (command_mirror if op.job in world.mirrors else command_backup)(op, world)
