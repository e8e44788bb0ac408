"""What an example starts with."""

from dataclasses import replace

from hypothesis import strategies as st

from qbprop.machine import graphs, groups, guest, jobs, opening
from qbprop.machine.backups import create_image, incremental
from qbprop.machine.bitmaps import bitmap_add
from qbprop.machine.core import Drawn, drawn
from qbprop.machine.draws import Draft, below, pick, seldom
from qbprop.machine.exports import export_add
from qbprop.machine.topology import add_disk
from qbprop_model.operations import Flush, Operation, Restart
from qbprop_model.world import World

FIRST_MOVES: dict[str | None, tuple[str, ...]] = {
    None: ("nothing", "job", "job", "chain", "job", "job", "graph", "job", "group", "job"),
    "jobs": ("job", "job", "job", "group"),
    "layers": ("nothing", "job", "job", "chain", "job", "group", "job"),
    "bitmaps": ("nothing", "job", "job", "chain", "job", "group", "job"),
    "backups": ("nothing", "job", "chain", "chain", "job"),
    "storage": ("nothing", "job", "graph", "chain", "job"),
    "graphs": ("graph", "graph", "graph", "graph", "graph", "job"),
}
"""By subject (as for None where one is not here), how often what is drawn behind the disks.

At least a quarter of all steps shall have a job in flight, and Hypothesis switches the rules
that start jobs, or put one disk above another, off for whole examples.
"""

Begun = tuple[str | None, Drawn]


def begun() -> st.SearchStrategy[Begun]:
    """One of the machine's subjects, and the first operations of an example that keeps to it."""
    subjects = st.runner().flatmap(
        lambda machine: st.sampled_from(machine.subjects).filter(machine.wants)
    )
    return subjects.flatmap(lambda subject: st.tuples(st.just(subject), drawn(start, subject)))


def start(draw: st.DrawFn, world: World, subject: str | None) -> tuple[Operation, ...]:
    """One to three disks, most with bitmaps, some with an image to back up into; some writes.

    Disks that are to be put above others are made when they are needed.

    A disk whose flushes fail is flushed while there is nothing to flush, every other time.

    Then seldom an export, often a job that stays, the first link of a chain of backups, or a
    snapshot.
    """
    draft = Draft(world)
    scratch = draft.world
    if first := below(draw, len(world.qemus)):
        draft.add(Restart(qemu=first))
    more = (0, 0, 0, 1) if subject == "graphs" else (0, 0, 1, 2)
    for _ in range(1 + pick(draw, more)):
        disk = add_disk(draw, scratch)
        if subject == "graphs":
            disk = replace(disk, drive=None, faults=None)
        draft.add(disk)
        if any(fault.request == "flush" for fault in disk.faults or ()) and seldom(draw, 2):
            draft.add(Flush(node=disk.node))
        for _ in range(pick(draw, [1, 2, 0, 3])):
            draft.add(bitmap_add(draw, scratch, disk.node))
        if disk.faults is None and disk.node in scratch.nodes and seldom(draw, 4):
            opening.again(draw, draft, disk.node)
        if seldom(draw, 2):
            draft.add(create_image(draw, scratch, disk.layers[0].size))
    draft.add(*guest.few(draw, scratch))
    if seldom(draw, 10):
        draft.add(export_add(draw, scratch))
    match pick(draw, FIRST_MOVES.get(subject, FIRST_MOVES[None])):
        case "job":
            draft.operations += jobs.start_any(draw, scratch)
        case "group":
            draft.operations += groups.group(draw, scratch)
        case "chain":
            draft.operations += incremental(draw, scratch)
        case "graph" if graphs.possible(scratch):
            draft.operations += graphs.graphs(draw, scratch)
    return tuple(draft.operations)
