"""What to do for an operation, as data: a :class:`Plan` of primitive steps.

:func:`plan` is a pure function of the operation. The driver performs a plan and exporters
render the same one, so that an operation is read in one place only. Every image is named by
a file name relative to QEMU's working directory, see :func:`disk_file`, :func:`target_file`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import singledispatch

from qbprop.qemu.monitor import Command
from qbprop.qemu.primitives import (
    AttachGuest,
    AwaitCopy,
    AwaitExportGone,
    AwaitJobs,
    AwaitRest,
    CompleteJob,
    DetachGuest,
    DirtyExtents,
    EndQemu,
    FormatOf,
    GuestKind,
    GuestRequest,
    HoldRequest,
    HumanCommand,
    MakeImage,
    MigrateQemu,
    Plan,
    Primitive,
    Program,
    ReattachGuest,
    ReleaseGuest,
    ReleaseRequest,
    ServeExports,
    UntilConcluded,
    synced_length,
)
from qbprop_model import operations as op
from qbprop_model.data import SECTOR

ERRNOS: dict[op.Errno, int] = {"EIO": 5, "ENOSPC": 28}
"""Linux's numbers, which *blkdebug* is told."""


def disk_file(node: str, depth: int = 0) -> str:
    """The file of a disk's layer; ``depth`` 0 is the top one, 1 its backing file, ..."""
    return f"{node}.{depth}.img"


def target_file(target: str) -> str:
    """The file of a backup target."""
    return f"{target}.img"


@singledispatch
def plan(operation: op.Operation) -> Plan:
    """The plan for ``operation``. Raises TypeError for a kind that has none of its own."""
    raise TypeError(f"{type(operation).__name__} cannot be performed by itself")


@plan.register
def _(operation: op.AddDisk) -> Plan:
    node, layers = operation.node, operation.layers
    images = []
    for depth, layer in reversed(list(enumerate(layers))):
        below = layers[depth + 1 :]
        backing = disk_file(node, depth + 1) if below else None
        form = below[0].format if below else None
        images.append((MakeImage(disk_file(node, depth), layer, backing, form), None))
    # The protocol node below inherits no "discard" option: QEMU opens it with "unmap" and
    # lets the format node decide.
    protocol: dict[str, object] = {"driver": "file", "filename": disk_file(node)}
    options: dict[str, object] = {
        "discard": operation.discard,
        "detect-zeroes": operation.detect_zeroes,
    }
    if _below(operation):
        protocol = {"driver": "blkdebug", "align": SECTOR, "image": protocol} | _injected(
            operation.faults or ()
        )
    if operation.faults is None or _below(operation):
        given = {"driver": layers[0].format, "node-name": node, **options, "file": protocol}
    else:
        image = {"driver": layers[0].format, "discard": operation.discard, "file": protocol}
        given = options | blkdebug(node, operation.faults, image)
    main: Primitive = Command("blockdev-add", given)
    if operation.drive is not None:
        main = _drive_add(operation.drive, given)
    return Plan(main, prepare=tuple(images), then=(AttachGuest(node, operation.drive),))


@plan.register
def _(operation: op.CloseDisk) -> Plan:
    name = operation.node
    main: Primitive = Command("blockdev-del", {"node-name": name})
    if name in op.DRIVES:
        main = HumanCommand(f"drive_del {name}")
    guest = (DetachGuest(name), ReattachGuest(name))
    return Plan(main, prepare=(guest,), then=(ReleaseGuest(name),))


@plan.register
def _(operation: op.OpenDisk) -> Plan:
    return _opening(operation)


def _opening(operation: op.Opening) -> Plan:
    node, drive, writable = operation.node, operation.drive, not operation.read_only
    given = _opened(operation)
    main: Primitive = Command("blockdev-add", given)
    if drive is not None:
        main = _drive_add(drive, given)
    return Plan(main, then=(AttachGuest(node, drive, writable=writable),))


@plan.register
def _(operation: op.ReopenDisk) -> Plan:
    node = operation.node
    main = Command("blockdev-reopen", {"options": [_opened(operation)]})
    guest = (DetachGuest(node), ReattachGuest(node))
    attached = AttachGuest(node, writable=not operation.read_only)
    return Plan(main, prepare=(guest,), then=(attached,))


@plan.register
def _(operation: op.BlockdevSnapshot) -> Plan:
    actions = (operation,)
    return Plan(_command(operation), prepare=_free_overlays(actions), then=_cover(actions))


def _free_overlays(actions: Iterable[op.Operation]) -> tuple[tuple[Primitive, Primitive], ...]:
    """The guests of an overlay would be in the way; those of the disk move along with it."""
    overlays = [each.overlay for each in actions if isinstance(each, op.BlockdevSnapshot)]
    return tuple((DetachGuest(overlay), ReattachGuest(overlay)) for overlay in overlays)


def _cover(actions: Iterable[op.Operation]) -> tuple[Primitive, ...]:
    """What is below an overlay can only be read."""
    nodes = [each.node for each in actions if isinstance(each, op.BlockdevSnapshot)]
    return tuple(
        step for node in nodes for step in (DetachGuest(node), AttachGuest(node, writable=False))
    )


@plan.register
def _(operation: op.BlockCommit) -> Plan:
    job, node, base, top = operation.job, operation.node, operation.base, operation.top
    arguments = {"job-id": job, "device": node, "base-node": base}
    # The base may grow, which a guest's export does not allow for, and nobody may read between.
    below = (base, *operation.between)
    if operation.filter is not None:
        # Guests of the disk would stay below the filter; behind the job they are where they were.
        below = (node, *below)
        arguments["filter-node-name"] = operation.filter
        settle: tuple[Primitive, ...] = (AwaitRest(),)
        over = UntilConcluded(job, ReleaseGuest(operation.filter))
        then: tuple[Primitive, ...] = (
            AttachGuest(operation.filter),
            over,
            UntilConcluded(job, AttachGuest(base)),
        )
    elif top is None:
        settle = (CompleteJob(job), AwaitJobs())
        then = (DetachGuest(node), AttachGuest(node), AttachGuest(base))
    else:
        arguments["top-node"] = top
        below = (*below, top)
        settle = (AwaitJobs(),)
        then = tuple(AttachGuest(name, writable=False) for name in below)
    return Plan(
        Command("block-commit", arguments),
        prepare=tuple((DetachGuest(name), ReattachGuest(name)) for name in below),
        settle=settle,
        then=then,
    )


@plan.register
def _(operation: op.BlockStream) -> Plan:
    arguments = {"job-id": operation.job, "device": operation.node}
    if operation.base is not None:
        arguments["base-node"] = operation.base
    return Plan(Command("block-stream", arguments), settle=(AwaitJobs(),))


@plan.register
def _(operation: op.BlockdevMirror) -> Plan:
    job, node, target = operation.job, operation.node, operation.target
    arguments = {
        "job-id": job,
        "device": node,
        "target": target,
        "sync": operation.sync,
        "copy-mode": operation.copy_mode,
        "filter-node-name": operation.filter,
    }
    # Guests would stay below the filter, or write to the target; they go through the filter.
    over = UntilConcluded(job, ReleaseGuest(operation.filter))
    return Plan(
        Command("blockdev-mirror", arguments),
        prepare=tuple((DetachGuest(name), ReattachGuest(name)) for name in (node, target)),
        settle=(AwaitRest(),),
        then=(AttachGuest(operation.filter), over),
    )


@plan.register
def _(operation: op.Restart) -> Plan:
    return Plan(EndQemu(operation.how, operation.qemu))


@plan.register
def _(operation: op.Migrate) -> Plan:
    mapping = operation.mapping
    old = new = None
    if mapping is not None:
        old = _mapping((each.node, each.name) for each in mapping)
        new = _mapping((each.node, each.to) for each in mapping)
    disks = tuple(map(_opening, operation.disks))
    return Plan(MigrateQemu(disks, operation.bitmaps, old, new, operation.qemu))


def _mapping(bitmaps: Iterable[tuple[str, str]]) -> list[dict[str, object]]:
    """What one side is told of bitmaps, by node and name: each travels by its number."""
    aliases: dict[str, list[dict[str, str]]] = {}
    for number, (node, name) in enumerate(bitmaps):
        aliases.setdefault(node, []).append({"name": name, "alias": f"alias{number}"})
    return [
        {"node-name": node, "alias": node, "bitmaps": entries} for node, entries in aliases.items()
    ]


def _opened(operation: op.Opening | op.ReopenDisk) -> dict[str, object]:
    """The options of a disk whose images exist."""
    return {
        "driver": operation.format,
        "node-name": operation.node,
        "read-only": operation.read_only,
        "discard": operation.discard,
        "detect-zeroes": operation.detect_zeroes,
        "file": {"driver": "file", "filename": disk_file(operation.node)},
    }


def _drive_add(drive: str, given: Mapping[str, object]) -> HumanCommand:
    words = {"if": "none", "id": drive} | _flat(given)
    return HumanCommand("drive_add 0 " + ",".join(f"{k}={v}" for k, v in words.items()), "OK")


def _below(operation: op.AddDisk) -> bool:
    """Whether the filter is below the format: the header with the size is its first sector."""
    return any(fault.request in op.BELOW for fault in operation.faults or ())


def blkdebug(
    node: str, faults: Iterable[op.Fault], image: Mapping[str, object]
) -> dict[str, object]:
    """The arguments of ``blockdev-add`` for a filter above ``image`` that has faults."""
    return {"driver": "blkdebug", "node-name": node} | _injected(faults) | {"image": image}


def _injected(faults: Iterable[op.Fault]) -> dict[str, object]:
    rules: list[dict[str, object]] = []
    for fault in faults:
        if fault.request == "write_aio":
            return _counted(fault)
        rule: dict[str, object] = {"event": "none", "errno": ERRNOS[fault.errno]}
        kind = "write" if fault.request == "resize" else fault.request
        rule["iotype"] = kind.replace("_", "-")
        if fault.request not in ("flush", "block_status"):
            rule["sector"] = 0 if fault.request == "resize" else fault.offset // SECTOR
        rules += [rule | {"once": True}] * fault.times if fault.times else [rule]
    return {"inject-error": rules} if rules else {}


def _counted(fault: op.Fault) -> dict[str, object]:
    """Rules for the write of data behind so many: each moves the filter on by a state."""
    event, last = {"event": fault.request}, fault.after + 1
    failing = event | {"errno": ERRNOS[fault.errno], "iotype": "write"}
    rules: dict[str, object] = {"inject-error": [failing | {"once": True, "state": last}]}
    moves = [event | {"state": state, "new_state": state + 1} for state in range(1, last)]
    return rules | ({"set-state": moves} if moves else {})


def _flat(value: object, prefix: str = "") -> dict[str, str]:
    """The dotted words for nested arguments."""
    match value:
        case Mapping():
            items = list(value.items())
        case list():
            items = list(enumerate(value))
        case bool():
            return {prefix: "on" if value else "off"}
        case _:
            return {prefix: str(value)}
    return {
        key: word
        for name, below in items
        for key, word in _flat(below, f"{prefix}.{name}" if prefix else f"{name}").items()
    }


@plan.register
def _(operation: op.Read) -> Plan:
    return Plan(GuestRequest(operation.node, "read", operation.offset, operation.length))


@plan.register
def _(operation: op.Flush) -> Plan:
    return Plan(GuestRequest(operation.node, "flush"))


@plan.register
def _(operation: op.Write) -> Plan:
    return Plan(_write(operation, "write"))


@plan.register
def _(operation: op.HoldWrite) -> Plan:
    written = GuestRequest(
        operation.node, "write", operation.offset, operation.length, data=operation.data
    )
    return Plan(HoldRequest(written))


@plan.register
def _(operation: op.ReleaseWrite) -> Plan:
    return Plan(ReleaseRequest(operation.node))


@plan.register
def _(operation: op.WriteCompressed) -> Plan:
    return Plan(_write(operation, "write_compressed"))


def _write(operation: op.Write | op.WriteCompressed, kind: GuestKind) -> GuestRequest:
    offset, length = operation.offset, operation.length
    return GuestRequest(operation.node, kind, offset, length, data=operation.data)


@plan.register
def _(operation: op.WriteZeroes) -> Plan:
    offset, length = operation.offset, operation.length
    return Plan(GuestRequest(operation.node, "write_zeroes", offset, length, unmap=operation.unmap))


@plan.register
def _(operation: op.Discard) -> Plan:
    return Plan(GuestRequest(operation.node, "discard", operation.offset, operation.length))


@plan.register
def _(operation: op.Resize) -> Plan:
    name = operation.node
    key = "device" if name in op.DRIVES else "node-name"
    main = Command("block_resize", {key: name, "size": operation.size})
    # An export shares no permission to resize its node (semantics 10.2).
    return Plan(main, prepare=((DetachGuest(name), ReattachGuest(name)),))


@plan.register
def _(operation: op.CreateImage) -> Plan:
    file, layer = target_file(operation.image), operation.layer
    if operation.backing is None:
        return Plan(MakeImage(file, layer))
    backing = target_file(operation.backing)
    return Plan(MakeImage(file, layer, backing, FormatOf(backing)))


@plan.register
def _(operation: op.RebaseImage) -> Plan:
    file = target_file(operation.image)
    arguments: tuple[str | FormatOf, ...] = ("rebase", "-u", "-f", FormatOf(file))
    if operation.backing is None:
        arguments += ("-b", "")
    else:
        backing = target_file(operation.backing)
        arguments += ("-b", backing, "-F", FormatOf(backing))
    return Plan(Program("qemu-img", (*arguments, file)))


@plan.register
def _(operation: op.ChangeBitmap) -> Plan:
    actions: list[str] = []
    for each in operation.actions:
        actions += [f"--{each.kind}", *([] if each.source is None else [each.source])]
    options: list[str | FormatOf] = []
    if operation.granularity is not None:
        options += ["-g", str(operation.granularity)]
    if operation.source is not None:
        source = disk_file(operation.source)
        options += ["-b", source, "-F", FormatOf(source)]
    file = disk_file(operation.node)
    words = ("bitmap", "-f", operation.format, *actions, *options, file, operation.name)
    return Plan(Program("qemu-img", words))


@plan.register
def _(operation: op.ResizeImage) -> Plan:
    words = ("resize", "-q", "--shrink", "-f", operation.format)
    file, size = disk_file(operation.node), str(operation.size)
    return Plan(Program("qemu-img", (*words, file, size)))


@plan.register
def _(operation: op.CommitImage) -> Plan:
    kept = ("-d",) if operation.keep else ()
    words = ("commit", "-q", "-f", operation.format, *kept, disk_file(operation.node))
    return Plan(Program("qemu-img", words))


@plan.register
def _(operation: op.ConvertImage) -> Plan:
    options = ["-S", "0", "-o", f"cluster_size={operation.cluster_size}"]
    options += ["--bitmaps"] if operation.bitmaps else []
    options += ["--skip-broken-bitmaps"] if operation.skip_broken else []
    files = (disk_file(operation.node), disk_file(operation.into))
    words = ("convert", "-f", operation.format, "-O", "qcow2", *options, *files)
    return Plan(Program("qemu-img", words))


@plan.register
def _(operation: op.CompareImages) -> Plan:
    one, other = disk_file(operation.node), disk_file(operation.other)
    words = ("compare", "-f", FormatOf(one), "-F", FormatOf(other), one, other)
    return Plan(Program("qemu-img", words))


@plan.register(op.BitmapAdd)
@plan.register(op.BitmapRemove)
@plan.register(op.BitmapClear)
@plan.register(op.BitmapEnable)
@plan.register(op.BitmapDisable)
@plan.register(op.BitmapMerge)
def _(operation: op.BitmapAction) -> Plan:
    return Plan(_command(operation))


@plan.register
def _(operation: op.ExportAdd) -> Plan:
    bitmaps = [_reference(each) for each in operation.bitmaps]
    arguments = {
        "type": "nbd",
        "id": operation.export,
        "name": operation.export if operation.name is None else operation.name,
        "node-name": operation.node,
        "writable": operation.writable,
        "bitmaps": bitmaps,
    }
    main = Command("block-export-add", arguments)
    return Plan(main, prepare=((ServeExports(), None),))


@plan.register
def _(operation: op.ExportDel) -> Plan:
    main = Command("block-export-del", {"id": operation.export, "mode": operation.mode})
    return Plan(main, then=(AwaitExportGone(operation.export),))


@plan.register
def _(operation: op.ReadDirtyExtents) -> Plan:
    offset, length = operation.offset, operation.length
    main = DirtyExtents(operation.export, operation.bitmap, offset, length)
    return Plan(main, prepare=((ServeExports(), None),))


@plan.register(op.DriveBackup)
@plan.register(op.BlockdevBackup)
def _(operation: op.Backup) -> Plan:
    return Plan(
        _command(operation), prepare=_open_targets((operation,)), settle=_settle((operation,))
    )


@plan.register
def _(operation: op.Transaction) -> Plan:
    commands = map(_command, operation.actions)
    arguments: dict[str, object] = {
        "actions": [{"type": each.name, "data": each.arguments} for each in commands]
    }
    if operation.grouped:
        arguments["properties"] = {"completion-mode": "grouped"}
    actions = operation.actions
    return Plan(
        Command("transaction", arguments),
        prepare=(*_free_overlays(actions), *_open_targets(actions)),
        settle=_settle(actions),
        then=_cover(actions),
    )


DRAIN = Command("transaction", {"actions": []})
"""An empty transaction: when it is over, no request is under way (semantics 6.7)."""


def awaiting(planned: Plan, rests: Mapping[str, str] | None) -> Plan:
    """The plan of an operation that moves jobs, which come to rest in the status in ``rests``.

    What a guest does may leave a job nothing to do; it notices when it is drained. A mirror looks
    every tenth of a second for what guests have written, or when its speed is set.
    """
    if not rests or planned.settle:
        return planned
    following = [job for job, rest in rests.items() if synced_length(rest) is not None]
    wake = [Command("block-job-set-speed", {"device": job, "speed": 0}) for job in following]
    return replace(planned, settle=(*(wake or [DRAIN]), AwaitRest()))


def _settle(actions: tuple[op.Action, ...]) -> tuple[Primitive, ...]:
    """A job with a speed limit rests as soon as it has copied something and has nothing in hand.

    A drain would settle it too, but for what docs/findings/held-copy.md tells.
    """
    backups = [each for each in actions if isinstance(each, op.Backup)]
    limited = (each.job for each in backups if each.speed and each.sync != "none")
    if any(each.lasting for each in backups):
        return (AwaitRest(), *(AwaitCopy(job) for job in limited if job is not None))
    return (AwaitJobs(),) if backups else ()


@plan.register
def _(operation: op.JobCommand) -> Plan:
    resumed = isinstance(operation, op.JobResume)  # and may copy what its speed limit allows
    settle = (AwaitRest(), DRAIN) if resumed else (AwaitRest(),)
    return Plan(_job_command(operation), settle=settle)


def _job_command(operation: op.JobCommand) -> Command:
    if isinstance(operation, op.JobSetSpeed):
        arguments = {"device": operation.job, "speed": operation.speed}
        return Command("block-job-set-speed", arguments)
    verb = op.operation_name(operation).removeprefix("job_")
    if not operation.block:
        return Command(f"job-{verb}", {"id": operation.job})
    key = "id" if verb in ("finalize", "dismiss") else "device"
    named: dict[str, object] = {key: operation.job}
    if isinstance(operation, op.JobCancel) and operation.force:
        named["force"] = True
    return Command(f"block-job-{verb}", named)


def _open_targets(actions: tuple[op.Action, ...]) -> tuple[tuple[Primitive, Primitive], ...]:
    """Open each target of a ``blockdev-backup`` once, and close it afterwards.

    That of a job that may outlive the operation is closed behind the job, and guests read it.
    """
    lasting = any(isinstance(each, op.Backup) and each.lasting for each in actions)
    backups = [each for each in actions if isinstance(each, op.BlockdevBackup)]
    jobs = {each.target: each.job for each in backups}
    faults = {each.target: each.faults for each in reversed(backups)}
    steps: list[tuple[Primitive, Primitive]] = []
    for target, job in jobs.items():
        options = image_options(target, target_file(target))
        if faults[target]:
            del options["node-name"]
            options = blkdebug(target, faults[target], options)
        opened = Command("blockdev-add", options)
        closed = Command("blockdev-del", {"node-name": target})
        if job is None or not lasting:
            steps.append((opened, closed))
            continue
        steps.append((opened, UntilConcluded(job, closed)))
        guest = AttachGuest(target, writable=False)
        steps.append((guest, UntilConcluded(job, ReleaseGuest(target))))
    return tuple(steps)


def image_options(node: str, file: str) -> dict[str, object]:
    """The arguments of ``blockdev-add`` that open ``file``, and its chain, as node ``node``."""
    protocol = {"driver": "file", "filename": file}
    return {"driver": FormatOf(file), "node-name": node, "file": protocol}


def _command(action: op.Action) -> Command:
    """The QMP command, or the transaction action of the same name and arguments."""
    match action:
        case op.BitmapAdd(node=node, name=name, granularity=granularity):
            disabled, persistent = action.disabled or None, action.persistent or None
            optional = _given(granularity=granularity, disabled=disabled, persistent=persistent)
            return Command("block-dirty-bitmap-add", {"node": node, "name": name} | optional)
        case op.BitmapRemove(node=node, name=name):
            return Command("block-dirty-bitmap-remove", {"node": node, "name": name})
        case op.BitmapClear(node=node, name=name):
            return Command("block-dirty-bitmap-clear", {"node": node, "name": name})
        case op.BitmapEnable(node=node, name=name):
            return Command("block-dirty-bitmap-enable", {"node": node, "name": name})
        case op.BitmapDisable(node=node, name=name):
            return Command("block-dirty-bitmap-disable", {"node": node, "name": name})
        case op.BitmapMerge(node=node, target=target, sources=sources):
            bitmaps = [_reference(each) for each in sources]
            arguments = {"node": node, "target": target, "bitmaps": bitmaps}
            return Command("block-dirty-bitmap-merge", arguments)
        case op.DriveBackup():
            file = target_file(action.target)
            special = {"target": file, "mode": action.mode, "format": action.format}
            return Command("drive-backup", special | _backup(action))
        case op.BlockdevBackup():
            return Command("blockdev-backup", {"target": action.target} | _backup(action))
        case op.BlockdevSnapshot(node=node, overlay=overlay):
            return Command("blockdev-snapshot", {"node": node, "overlay": overlay})
        case op.Abort():
            return Command("abort")


def _reference(bitmap: op.MergeSource | op.ExportedBitmap) -> str | dict[str, object]:
    """A bitmap of the node in question by its name, else by both names."""
    name, node = bitmap.name, bitmap.node
    return name if node is None else {"node": node, "name": name}


def _backup(action: op.Backup) -> dict[str, object]:
    performance = _given(max_workers=action.max_workers, max_chunk=action.max_chunk)
    return {"device": action.node, "sync": action.sync} | _given(
        job_id=action.job,
        bitmap=action.bitmap,
        bitmap_mode=action.bitmap_mode,
        compress=action.compress or None,
        speed=action.speed or None,
        x_perf=performance or None,
        auto_finalize=None if action.auto_finalize else False,
        auto_dismiss=None if action.auto_dismiss else False,
        filter_node_name=action.filter,
        on_source_error=None if action.on_source_error == "report" else action.on_source_error,
        on_target_error=None if action.on_target_error == "report" else action.on_target_error,
    )


def _given(**arguments: object) -> dict[str, object]:
    """The arguments that are not None, under their QMP names."""
    return {k.replace("_", "-"): v for k, v in arguments.items() if v is not None}
