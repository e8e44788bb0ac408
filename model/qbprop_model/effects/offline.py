"""What ``qemu-img`` does with the images of disks that are closed (semantics 8.8)."""

from collections.abc import Iterable, Iterator

from qbprop_model.effects.dispatch import effect
from qbprop_model.effects.opening import check_format, close, opened
from qbprop_model.expectation import Reason, Refusal
from qbprop_model.image import Refused
from qbprop_model.operations import (
    NODES,
    BitmapAdd,
    BitmapClear,
    BitmapDisable,
    BitmapEnable,
    BitmapMerge,
    BitmapRemove,
    ChangeBitmap,
    InvalidOperationError,
    MergeSource,
    OfflineAction,
    OpenOutcomeError,
    Operation,
    Resize,
    ResizeImage,
)
from qbprop_model.state import Outcome, State


@effect.register
def _(op: ChangeBitmap, world: State) -> Outcome:
    return perform(op, [_action(op, each) for each in op.actions], world, op.source)


@effect.register
def _(op: ResizeImage, world: State) -> Outcome:
    return perform(op, _resizes(op), world)


def perform(
    op: ChangeBitmap | ResizeImage,
    actions: Iterable[Operation],
    world: State,
    source: str | None = None,
) -> Outcome:
    """Do one after the other until one is refused; what was done is stored (8.8)."""
    open_offline(op, world)
    refusal, used = None, [op.node]
    try:
        if source is not None:
            open_source(source, op.node, world)
            used.append(source)
        for action in actions:
            effect(action, world)
    except Refused as refused:
        reason, subject = refused.refusal.reason, refused.refusal.subject
        unnamed = reason is Reason.PERSISTENCE_UNSUPPORTED
        refusal = Refusal(reason, "" if unnamed else subject)
    for each in used:
        close(world, each)
    return Outcome(refusal=refusal)


def open_offline(op: ChangeBitmap | ResizeImage, world: State) -> None:
    """``qemu-img`` opens an image for writing, which nobody else may have open (11)."""
    if op.node not in NODES:
        raise InvalidOperationError(f"there is no disk {op.node}")
    name = f"{op.node}.0"
    if name not in world.images:
        raise Refused(Reason.NO_SUCH_FILE)
    check_format(op, world.images[name])
    if op.node in world.nodes:
        check_locked(world, name)
    world.check_unused(name)
    world.nodes[op.node] = opened(world, name, read_only=False)


def check_locked(world: State, name: str) -> None:
    """Refuse an image that is open; a raw one is locked only as far as it is used (11)."""
    if world.images[name].format == "raw":
        raise OpenOutcomeError("two users of one raw file")
    raise Refused(Reason.IMAGE_LOCKED)


def open_source(source: str, target: str, world: State) -> None:
    """The image that bitmaps are merged from is opened read-only."""
    if source not in NODES:
        raise InvalidOperationError(f"there is no disk {source}")
    name = f"{source}.0"
    if name not in world.images:
        raise Refused(Reason.NO_SUCH_FILE)
    node = world.nodes.get(source)
    if source == target or (node is not None and not node.read_only):
        check_locked(world, name)
    if node is not None:
        raise InvalidOperationError("an image that QEMU has open as well")
    world.nodes[source] = opened(world, name, read_only=True)


def _resizes(op: ResizeImage) -> Iterator[Operation]:
    """``qemu-img`` makes no empty image, though the monitor does."""
    if not op.size:
        raise Refused(Reason.SIZE_NOT_POSITIVE)
    yield Resize(node=op.node, size=op.size)


def _action(op: ChangeBitmap, action: OfflineAction) -> Operation:
    """The command of QMP that ``qemu-img`` performs for an action."""
    node, name = op.node, op.name
    match action.kind:
        case "add":
            return BitmapAdd(node=node, name=name, granularity=op.granularity, persistent=True)
        case "merge":
            assert action.source is not None
            source = MergeSource(name=action.source, node=op.source)
            return BitmapMerge(node=node, target=name, sources=(source,))
        case kind:
            commands = {
                "clear": BitmapClear,
                "enable": BitmapEnable,
                "disable": BitmapDisable,
                "remove": BitmapRemove,
            }
            return commands[kind](node=node, name=name)
