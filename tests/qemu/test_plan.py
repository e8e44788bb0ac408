import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from qbprop.qemu.monitor import Command
from qbprop.qemu.plan import plan
from qbprop.qemu.primitives import (
    AttachGuest,
    AwaitCopy,
    AwaitJobs,
    AwaitRest,
    DetachGuest,
    FormatOf,
    GuestRequest,
    HumanCommand,
    MakeImage,
    Plan,
    Primitive,
    Program,
    ReattachGuest,
    ReleaseGuest,
    UntilConcluded,
    resolve,
)
from qbprop_model import operations as op
from qbprop_model.data import Fill, Stamp

SMALL = op.Layer(size=1 << 20)


def steps(made: Plan) -> Iterator[Primitive]:
    for step, reverse in made.prepare:
        yield step
        if reverse is not None:
            yield reverse
    yield made.main
    yield from made.settle
    yield from made.then


EVERY = [
    op.AddDisk(node="drive0", layers=(SMALL,)),
    op.CloseDisk(node="drive0"),
    op.OpenDisk(node="drive0", drive="device0", read_only=True),
    op.ReopenDisk(node="drive0", read_only=True),
    op.BlockdevSnapshot(node="drive0", overlay="drive1"),
    op.BlockCommit(job="job0", node="drive2", base="drive0", between=("drive1",)),
    op.BlockCommit(job="job0", node="drive2", base="drive0", top="drive1"),
    op.BlockCommit(job="job0", node="drive1", base="drive0", filter="filter0"),
    op.BlockStream(job="job0", node="drive1"),
    op.BlockStream(job="job0", node="drive2", base="drive0"),
    op.BlockdevMirror(job="job0", node="drive0", target="drive1", filter="filter0"),
    op.Restart(how="kill"),
    op.Migrate(
        disks=(op.Opening(node="drive0"),),
        mapping=(op.Renaming(node="drive0", name="bitmap0", to="bitmap1"),),
    ),
    op.Read(node="drive0", offset=0, length=1),
    op.Flush(node="drive0"),
    op.Write(node="drive0", offset=0, length=1, fill=1),
    op.WriteCompressed(node="drive0", offset=0, length=512, stamp=1),
    op.WriteZeroes(node="drive0", offset=0, length=1),
    op.Discard(node="drive0", offset=0, length=1),
    op.HoldWrite(node="drive0", offset=0, length=1, stamp=1),
    op.ReleaseWrite(node="drive0"),
    op.Resize(node="drive0", size=512),
    op.BitmapAdd(node="drive0", name="bitmap0"),
    op.BitmapRemove(node="drive0", name="bitmap0"),
    op.BitmapClear(node="drive0", name="bitmap0"),
    op.BitmapEnable(node="drive0", name="bitmap0"),
    op.BitmapDisable(node="drive0", name="bitmap0"),
    op.BitmapMerge(node="drive0", target="bitmap0"),
    op.CreateImage(image="target0", layer=SMALL),
    op.RebaseImage(image="target0"),
    op.ChangeBitmap(
        node="drive0",
        name="bitmap0",
        actions=(op.OfflineAction(kind="add"), op.OfflineAction(kind="merge", source="bitmap1")),
        granularity=512,
        source="drive1",
    ),
    op.ResizeImage(node="drive0", size=512),
    op.CommitImage(node="drive0", keep=True),
    op.ConvertImage(node="drive0", into="drive1", bitmaps=True, skip_broken=True),
    op.CompareImages(node="drive0", other="drive1"),
    op.DriveBackup(node="drive0", target="target0", sync="full"),
    op.BlockdevBackup(node="drive0", target="target0", sync="full"),
    op.Transaction(),
    op.JobSetSpeed(job="job0", speed=1),
    op.JobPause(job="job0"),
    op.JobResume(job="job0", block=True),
    op.JobCancel(job="job0", block=True, force=True),
    op.JobComplete(job="job0"),
    op.JobFinalize(job="job0"),
    op.JobDismiss(job="job0"),
    op.ExportAdd(export="export0", node="drive0"),
    op.ExportDel(export="export0"),
    op.ReadDirtyExtents(export="export0", bitmap="bitmap0", offset=0, length=1),
]


def test_every_operation_has_a_plan() -> None:
    assert {type(each) for each in EVERY} == set(op.OPERATIONS)
    for each in EVERY:
        assert isinstance(plan(each), Plan)


def test_every_command_is_json() -> None:
    for each in EVERY:
        for step in steps(plan(each)):
            if isinstance(step, Command):
                json.dumps(resolve(step, lambda _: "raw").arguments)


def test_an_action_that_is_no_operation_has_no_plan() -> None:
    with pytest.raises(TypeError, match="Abort"):
        plan(op.Abort())


def test_a_chain_is_made_from_the_bottom_up() -> None:
    layers = (op.Layer(size=512), op.Layer(size=1024, format="raw"))
    made = plan(op.AddDisk(node="drive1", layers=layers, discard="unmap"))
    assert made.prepare == (
        (MakeImage("drive1.1.img", layers[1]), None),
        (MakeImage("drive1.0.img", layers[0], "drive1.1.img", "raw"), None),
    )
    assert made.main == Command(
        "blockdev-add",
        {
            "driver": "qcow2",
            "node-name": "drive1",
            "file": {"driver": "file", "filename": "drive1.0.img"},
            "discard": "unmap",
            "detect-zeroes": "off",
        },
    )
    assert made.then == (AttachGuest("drive1"),)


def test_a_drive_is_added_by_the_human_monitor() -> None:
    made = plan(op.AddDisk(node="drive1", layers=(SMALL,), drive="device1", detect_zeroes="on"))
    assert made.main == HumanCommand(
        "drive_add 0 if=none,id=device1,driver=qcow2,node-name=drive1,discard=ignore,"
        "detect-zeroes=on,file.driver=file,file.filename=drive1.0.img",
        "OK",
    )
    assert made.then == (AttachGuest("drive1", "device1"),)


FAULTS = (
    op.Fault(request="read", offset=1024, errno="ENOSPC", times=0),
    op.Fault(request="write_zeroes", times=2),
    op.Fault(request="flush"),
)
RULES = [
    {"event": "none", "errno": 28, "iotype": "read", "sector": 2},
    {"event": "none", "errno": 5, "iotype": "write-zeroes", "sector": 0, "once": True},
    {"event": "none", "errno": 5, "iotype": "write-zeroes", "sector": 0, "once": True},
    {"event": "none", "errno": 5, "iotype": "flush", "once": True},
]


def test_faults_are_rules_of_a_filter_above_the_format() -> None:
    made = plan(op.AddDisk(node="drive1", layers=(SMALL,), discard="unmap", faults=FAULTS))
    assert made.main == Command(
        "blockdev-add",
        {
            "driver": "blkdebug",
            "node-name": "drive1",
            "discard": "unmap",
            "detect-zeroes": "off",
            "inject-error": RULES,
            "image": {
                "driver": "qcow2",
                "discard": "unmap",
                "file": {"driver": "file", "filename": "drive1.0.img"},
            },
        },
    )


def test_a_file_that_takes_no_new_size_has_its_filter_below_the_format() -> None:
    fault = op.Fault(request="resize", errno="ENOSPC", times=0)
    made = plan(op.AddDisk(node="drive1", layers=(SMALL,), faults=(fault,)))
    rule = {"event": "none", "errno": 28, "iotype": "write", "sector": 0}
    protocol = {"driver": "file", "filename": "drive1.0.img"}
    assert made.main == Command(
        "blockdev-add",
        {
            "driver": "qcow2",
            "node-name": "drive1",
            "discard": "ignore",
            "detect-zeroes": "off",
            "file": {
                "driver": "blkdebug",
                "align": 512,
                "image": protocol,
                "inject-error": [rule],
            },
        },
    )


def test_a_filter_without_faults_has_no_rules() -> None:
    made = plan(op.AddDisk(node="drive1", layers=(SMALL,), faults=()))
    assert isinstance(made.main, Command)
    assert made.main.arguments["driver"] == "blkdebug"
    assert "inject-error" not in made.main.arguments


def test_the_rules_of_a_drive_are_dotted_words() -> None:
    made = plan(op.AddDisk(node="drive1", layers=(SMALL,), drive="device1", faults=FAULTS[2:]))
    assert made.main == HumanCommand(
        "drive_add 0 if=none,id=device1,discard=ignore,detect-zeroes=off,driver=blkdebug,"
        "node-name=drive1,inject-error.0.event=none,inject-error.0.errno=5,"
        "inject-error.0.iotype=flush,inject-error.0.once=on,image.driver=qcow2,"
        "image.discard=ignore,image.file.driver=file,image.file.filename=drive1.0.img",
        "OK",
    )


def test_the_line_of_a_drive_is_not_too_long_for_the_human_monitor() -> None:
    last = (16 << 40) - 512
    fault = op.Fault(request="write_zeroes", offset=last, errno="ENOSPC", times=op.DRIVE_FAULTS)
    disk = op.AddDisk(
        node="drive1",
        layers=(SMALL,),
        drive="device1",
        discard="unmap",
        detect_zeroes="unmap",
        faults=(fault,),
    )
    line = plan(disk).main
    assert isinstance(line, HumanCommand)
    assert len(line.line.partition(" 0 ")[2]) < 1024
    with pytest.raises(op.InvalidOperationError):
        replace(disk, faults=(fault, fault))


def test_a_target_with_faults_is_opened_below_them() -> None:
    backup = op.BlockdevBackup(node="drive0", target="target0", sync="full", faults=FAULTS[:1])
    (opened, _), *_ = plan(backup).prepare
    protocol = {"driver": "file", "filename": "target0.img"}
    assert resolve(opened, lambda _: "raw") == Command(
        "blockdev-add",
        {
            "driver": "blkdebug",
            "node-name": "target0",
            "inject-error": RULES[:1],
            "image": {"driver": "raw", "file": protocol},
        },
    )


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        (
            op.Write(node="device0", offset=7, length=9, stamp=3),
            GuestRequest("device0", "write", 7, 9, Stamp(3)),
        ),
        (
            op.WriteCompressed(node="drive0", offset=512, length=512, fill=0),
            GuestRequest("drive0", "write_compressed", 512, 512, Fill(0)),
        ),
        (
            op.WriteZeroes(node="drive0", offset=7, length=9, unmap=True),
            GuestRequest("drive0", "write_zeroes", 7, 9, unmap=True),
        ),
        (op.Discard(node="drive0", offset=7, length=9), GuestRequest("drive0", "discard", 7, 9)),
        (op.Read(node="drive0", offset=7, length=9), GuestRequest("drive0", "read", 7, 9)),
        (op.Flush(node="drive0"), GuestRequest("drive0", "flush")),
    ],
)
def test_a_guest_operation_is_one_request(operation: op.Operation, request_: GuestRequest) -> None:
    assert plan(operation) == Plan(request_)


@pytest.mark.parametrize(("name", "key"), [("drive2", "node-name"), ("device2", "device")])
def test_a_resize_takes_the_export_away_and_back(name: str, key: str) -> None:
    assert plan(op.Resize(node=name, size=1024)) == Plan(
        Command("block_resize", {key: name, "size": 1024}),
        prepare=((DetachGuest(name), ReattachGuest(name)),),
    )


def test_what_is_not_given_is_not_sent() -> None:
    assert plan(op.BitmapAdd(node="drive0", name="b")).main == Command(
        "block-dirty-bitmap-add", {"node": "drive0", "name": "b"}
    )
    assert plan(op.BitmapAdd(node="drive0", name="b", granularity=0, disabled=True)).main == (
        Command(
            "block-dirty-bitmap-add",
            {"node": "drive0", "name": "b", "granularity": 0, "disabled": True},
        )
    )


def test_merge_sources_of_the_same_and_of_another_node() -> None:
    sources = (op.MergeSource(name="a"), op.MergeSource(name="a", node="drive1"))
    assert plan(op.BitmapMerge(node="drive0", target="t", sources=sources)).main == Command(
        "block-dirty-bitmap-merge",
        {"node": "drive0", "target": "t", "bitmaps": ["a", {"node": "drive1", "name": "a"}]},
    )


def test_a_drive_backup_awaits_its_job() -> None:
    made = plan(
        op.DriveBackup(
            node="drive0",
            target="target1",
            sync="bitmap",
            job=None,
            bitmap="b",
            bitmap_mode="never",
            mode="existing",
            format="raw",
            compress=True,
        )
    )
    command = Command(
        "drive-backup",
        {
            "device": "drive0",
            "target": "target1.img",
            "sync": "bitmap",
            "bitmap": "b",
            "bitmap-mode": "never",
            "mode": "existing",
            "format": "raw",
            "compress": True,
        },
    )
    assert made == Plan(command, settle=(AwaitJobs(),))


def test_a_transaction_opens_each_target_once() -> None:
    first = op.BlockdevBackup(node="drive0", target="target1", sync="full", job="job1")
    second = op.BlockdevBackup(node="drive1", target="target1", sync="top", job="job1")
    made = plan(op.Transaction(actions=(first, second, op.Abort()), grouped=True))
    assert made == Plan(
        Command(
            "transaction",
            {
                "actions": [
                    {
                        "type": "blockdev-backup",
                        "data": {
                            "device": "drive0",
                            "target": "target1",
                            "sync": "full",
                            "job-id": "job1",
                        },
                    },
                    {
                        "type": "blockdev-backup",
                        "data": {
                            "device": "drive1",
                            "target": "target1",
                            "sync": "top",
                            "job-id": "job1",
                        },
                    },
                    {"type": "abort", "data": {}},
                ],
                "properties": {"completion-mode": "grouped"},
            },
        ),
        prepare=(
            (
                Command(
                    "blockdev-add",
                    {
                        "driver": FormatOf("target1.img"),
                        "node-name": "target1",
                        "file": {"driver": "file", "filename": "target1.img"},
                    },
                ),
                Command("blockdev-del", {"node-name": "target1"}),
            ),
        ),
        settle=(AwaitJobs(),),
    )


def test_a_held_job_is_given_its_limits_and_awaited_until_it_rests() -> None:
    held = op.BlockdevBackup(
        node="drive0",
        target="target0",
        sync="none",
        speed=1,
        max_workers=1,
        max_chunk=65536,
        auto_finalize=False,
        auto_dismiss=False,
        filter="filter0",
        on_source_error="stop",
    )
    made = plan(held)
    assert isinstance(made.main, Command)
    assert made.main.arguments == {
        "target": "target0",
        "device": "drive0",
        "sync": "none",
        "job-id": "job0",
        "speed": 1,
        "x-perf": {"max-workers": 1, "max-chunk": 65536},
        "auto-finalize": False,
        "auto-dismiss": False,
        "filter-node-name": "filter0",
        "on-source-error": "stop",
    }
    assert made.settle == (AwaitRest(),)
    assert plan(replace(held, sync="full")).settle == (AwaitRest(), AwaitCopy("job0"))
    close = Command("blockdev-del", {"node-name": "target0"})
    assert [undo for _, undo in made.prepare] == [
        UntilConcluded("job0", close),
        UntilConcluded("job0", ReleaseGuest("target0")),
    ]
    assert made.prepare[1][0] == AttachGuest("target0", writable=False)


@pytest.mark.parametrize(
    ("operation", "command"),
    [
        (op.JobPause(job="j"), Command("job-pause", {"id": "j"})),
        (op.JobPause(job="j", block=True), Command("block-job-pause", {"device": "j"})),
        (op.JobFinalize(job="j", block=True), Command("block-job-finalize", {"id": "j"})),
        (
            op.JobCancel(job="j", block=True, force=True),
            Command("block-job-cancel", {"device": "j", "force": True}),
        ),
        (op.JobSetSpeed(job="j"), Command("block-job-set-speed", {"device": "j", "speed": 0})),
    ],
)
def test_job_commands_in_both_forms(operation: op.Operation, command: Command) -> None:
    assert plan(operation) == Plan(command, settle=(AwaitRest(),))


def test_formats_are_filled_in_wherever_they_stand() -> None:
    formats = {"target0.img": "raw", "target1.img": "qcow2"}.__getitem__
    rebase = plan(op.RebaseImage(image="target1", backing="target0")).main
    assert resolve(rebase, formats) == Program(
        "qemu-img", ("rebase", "-u", "-f", "qcow2", "-b", "target0.img", "-F", "raw", "target1.img")
    )
    made = plan(op.CreateImage(image="target1", layer=SMALL, backing="target0")).main
    assert resolve(made, formats) == MakeImage("target1.img", SMALL, "target0.img", "raw")
    opened = plan(op.BlockdevBackup(node="drive0", target="target0", sync="full")).prepare[0][0]
    assert isinstance(opened, Command)
    assert resolve(opened, formats).arguments["driver"] == "raw"
