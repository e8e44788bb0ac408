"""Groups of backups, as the machine draws them."""

from collections import Counter

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from qbprop.campaign.rounds import ROUND_EXAMPLES
from qbprop.machine.groups import group
from qbprop_model.operations import (
    InvalidOperationError,
    JobCancel,
    JobCommand,
    JobDismiss,
    JobFinalize,
    JobPause,
    JobResume,
    JobSetSpeed,
    Transaction,
)
from qbprop_model.world import World


def test_groups_have_waiting_members_and_commands_to_them_and_come_again() -> None:
    met: Counter[str] = Counter()

    @settings(
        max_examples=ROUND_EXAMPLES,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def draw_one(data: st.DataObject) -> None:
        world, seen = World(), list[Transaction]()
        for operation in data.draw(st.composite(group)(world)):
            before = dict(world.jobs)
            try:
                expected = world.apply(operation)
            except InvalidOperationError:
                continue
            if isinstance(operation, JobCommand) and operation.job in before:
                met[f"{type(operation).__name__} {before[operation.job].status}"] += 1
            if isinstance(operation, Transaction) and expected.refusal is None:
                kind = "grouped" if operation.grouped else "individual"
                met[f"{kind} again" if operation in seen else kind] += 1
                seen.append(operation)

    for number in range(50):
        seed(number)(draw_one)()
    verbs = (JobCancel, JobPause, JobResume, JobSetSpeed, JobFinalize, JobDismiss)
    due = {f"{cls.__name__} {status}" for cls in verbs for status in ("running", "waiting")}
    due |= {"grouped", "individual", "grouped again", "individual again"}
    assert not due - set(met), met
