"""What ``qemu-img`` does with the images of disks that are closed (semantics 8.8)."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from qbprop_model.bitmap import Bitmap
from qbprop_model.data import SECTOR, Bytes
from qbprop_model.effects.backups import COPY_LIMIT
from qbprop_model.effects.dispatch import effect
from qbprop_model.effects.graphs import check_limit, commit, to_commit
from qbprop_model.effects.opening import check_format, close, opened
from qbprop_model.expectation import Reason, Refusal
from qbprop_model.image import Image, Refused, View
from qbprop_model.operations import (
    NODES,
    BitmapAdd,
    BitmapClear,
    BitmapDisable,
    BitmapEnable,
    BitmapMerge,
    BitmapRemove,
    ChangeBitmap,
    CommitImage,
    CompareImages,
    ConvertImage,
    InvalidOperationError,
    MergeSource,
    OfflineAction,
    OpenOutcomeError,
    Operation,
    Resize,
    ResizeImage,
)
from qbprop_model.ranges import joined, total
from qbprop_model.state import Outcome, State


@effect.register
def _(op: ChangeBitmap, world: State) -> Outcome:
    return perform(op, [_action(op, each) for each in op.actions], world, op.source)


@effect.register
def _(op: ResizeImage, world: State) -> Outcome:
    return perform(op, _resizes(op), world)


@effect.register
def _(op: CommitImage, world: State) -> Outcome:
    name = f"{op.node}.0"
    open_offline(op, world)
    if world.images[name].size > COPY_LIMIT:
        raise InvalidOperationError("a disk that takes qemu-img long")
    below = world.images[name].backing
    if below is None:
        close(world, op.node)
        return Outcome(refusal=Refusal(Reason.NO_BACKING_FILE))
    base = _open_base(name, below, world)
    layers = (world.images[name],)
    commit(world, base, layers, to_commit(world, layers, world.chain(below)))
    for each in (op.node, base):
        close(world, each)
    if not op.keep:
        world.images[name] = world.rules.empty(world.images[name])
    return Outcome()


def _open_base(name: str, below: str, world: State) -> str:
    """``qemu-img`` opens a backing file for writing, with its bitmaps: as a node of this name."""
    if any(image.backing == below for key, image in world.images.items() if key != name):
        raise InvalidOperationError(f"{below} is the backing file of others, too")
    _check_chain(below, world)
    disk, depth = below.split(".")
    base = below if int(depth) else disk
    world.nodes[base] = opened(world, below, read_only=False)
    return base


def _check_chain(image: str, world: State) -> None:
    """Nobody else may have open what is read."""
    chain = world.chain_names(image)
    if any(node.image in chain for node in world.nodes.values()):
        raise InvalidOperationError("an image that QEMU has open as well")
    if world.vague.intersection(chain):
        raise OpenOutcomeError("a chain of bytes that are open")


@effect.register
def _(op: ConvertImage, world: State) -> Outcome:
    new = f"{op.into}.0"
    if op.into not in NODES or op.into in world.nodes or new in world.images:
        raise InvalidOperationError(f"{op.into} is no slot that was never used")
    name = _read(op, world)
    image = world.images[name]
    bitmaps = _converted(op, image, world) if op.bitmaps else {}
    check_limit(image.size, op.cluster_size)
    if image.size % SECTOR or (bitmaps and not image.size):
        raise InvalidOperationError("what is not converted byte by byte")
    made = world.rules.create(format="qcow2", size=image.size, cluster_size=op.cluster_size)
    if image.size:
        cells = list(world.rules.visible(world.chain(name), 0, image.size))
        made = world.rules.carry((made,), cells, zeroes=False)
    world.put_image(new, replace(made, stored=bitmaps))
    return Outcome()


def _read(op: ConvertImage, world: State) -> str:
    """The name of the image that ``qemu-img`` reads."""
    name = _find(op.node, world)
    check_format(op, world.images[name])
    _check_chain(name, world)
    return name


def _converted(op: ConvertImage, image: Image, world: State) -> dict[str, Bitmap]:
    """The bitmaps that go along, as the new image stores them."""
    if image.format == "raw" or image.compat == "0.10":
        raise Refused(Reason.SOURCE_WITHOUT_BITMAPS)
    broken = sorted(key for key, bitmap in image.stored.items() if bitmap.inconsistent)
    if broken and not world.traits.skip_broken_bitmaps:
        raise OpenOutcomeError("what is left of a conversion that fails midway")
    if broken and not op.skip_broken:
        raise Refused(Reason.BITMAP_INCONSISTENT, broken[0] if len(broken) == 1 else "")
    return {key: bitmap for key, bitmap in image.stored.items() if key not in broken}


@effect.register
def _(op: CompareImages, world: State) -> Outcome:
    views = []
    for node in (op.node, op.other):
        name = _find(node, world)
        _check_chain(name, world)
        views.append(world.rules.view(world.chain(name)))
    spans = [span for view in views for span in view.written()]
    if total(joined(sorted(spans))) > COPY_LIMIT:
        raise InvalidOperationError("more bytes than are compared")
    size = max(view.size for view in views)
    for start, end in joined(sorted(spans)):
        one, other = (_rendered(view, start, min(end, size)) for view in views)
        if not np.array_equal(one, other):
            raise Refused(Reason.IMAGES_DIFFER)
    return Outcome()


def _rendered(view: View, start: int, end: int) -> Bytes:
    """Bytes of a disk; zeroes behind its end."""
    shown = view.render(start, max(0, min(end, view.size) - start))
    return np.concatenate([shown, np.zeros(end - start - len(shown), np.uint8)])


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


def open_offline(op: ChangeBitmap | ResizeImage | CommitImage, world: State) -> None:
    """``qemu-img`` opens an image for writing, which nobody else may have open (11)."""
    name = _find(op.node, world)
    check_format(op, world.images[name])
    if op.node in world.nodes:
        check_locked(world, name)
    world.check_unused(name)
    world.nodes[op.node] = opened(world, name, read_only=False)


def _find(disk: str, world: State) -> str:
    """The name of a disk's image; refused where there is none."""
    if disk not in NODES:
        raise InvalidOperationError(f"there is no disk {disk}")
    name = f"{disk}.0"
    if name not in world.images:
        raise Refused(Reason.NO_SUCH_FILE)
    return name


def check_locked(world: State, name: str) -> None:
    """Refuse an image that is open; a raw one is locked only as far as it is used (11)."""
    if world.images[name].format == "raw":
        raise OpenOutcomeError("two users of one raw file")
    raise Refused(Reason.IMAGE_LOCKED)


def open_source(source: str, target: str, world: State) -> None:
    """The image that bitmaps are merged from is opened read-only."""
    name = _find(source, world)
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
