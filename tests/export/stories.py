"""Operations that a reproducer can perform: every kind of step, and a job in flight."""

from qbprop_model.operations import (
    AddDisk,
    BitmapAdd,
    BitmapRemove,
    BlockdevBackup,
    CreateImage,
    Discard,
    Fault,
    JobCancel,
    JobFinalize,
    JobResume,
    Layer,
    Operation,
    Pattern,
    Read,
    Resize,
    Write,
    WriteCompressed,
    WriteZeroes,
)

HEALTHY: tuple[Operation, ...] = (
    AddDisk(
        node="drive0",
        layers=(Layer(size=300032, data=(Pattern(offset=0, length=70000, stamp=3),)),),
        discard="unmap",
    ),
    AddDisk(node="drive1", layers=(Layer(size=65536, format="raw"),), drive="device1"),
    BitmapAdd(node="drive0", name='odd "name"\\'),
    BitmapAdd(node="drive0", name="bitmap0", granularity=512, disabled=True),
    BitmapAdd(node="drive1", name="bitmap0"),
    BitmapAdd(node="drive0", name="bitmap0"),
    Write(node="drive0", offset=1000, length=3333, stamp=4),
    Write(node="device1", offset=0, length=512, fill=7),
    Write(node="drive2", offset=0, length=512, fill=7),
    Read(node="drive0", offset=0, length=4096),
    WriteCompressed(node="drive0", offset=196608, length=65536, stamp=2),
    WriteZeroes(node="drive0", offset=65536, length=65536, unmap=True),
    Discard(node="drive0", offset=0, length=65536),
    Write(node="drive0", offset=300032, length=512, fill=1),
    Resize(node="drive0", size=131072),
    Resize(node="drive0", size=131073),
    CreateImage(image="target0", layer=Layer(size=131072)),
    CreateImage(image="target1", layer=Layer(size=131072), backing="target0"),
    BlockdevBackup(node="drive0", target="target3", sync="full"),
    BlockdevBackup(
        node="drive0", target="target1", sync="bitmap", bitmap='odd "name"\\', bitmap_mode="always"
    ),
)
"""Every kind of step, with refusals; odd names and stamped data."""


IN_FLIGHT: tuple[Operation, ...] = (
    AddDisk(node="drive0", layers=(Layer(size=131072),)),
    CreateImage(image="target0", layer=Layer(size=131072)),
    BitmapAdd(node="drive0", name="bitmap0"),
    Write(node="drive0", offset=0, length=512, fill=1),
    BlockdevBackup(
        node="drive0",
        target="target0",
        sync="bitmap",
        bitmap="bitmap0",
        bitmap_mode="on-success",
        auto_finalize=False,
        auto_dismiss=False,
    ),
    Write(node="drive0", offset=65536, length=512, fill=2),
    Read(node="drive0", offset=0, length=1024),
    BitmapRemove(node="drive0", name="bitmap0"),
    Resize(node="drive0", size=65536),
    JobFinalize(job="job0"),
    Write(node="drive0", offset=0, length=512, fill=3),
)
"""A job that waits while guests write, is finalized, and stays concluded."""

STOPPED: tuple[Operation, ...] = (
    AddDisk(node="drive0", layers=(Layer(size=131072),)),
    CreateImage(image="target0", layer=Layer(size=131072)),
    Write(node="drive0", offset=65536, length=512, fill=1),
    BlockdevBackup(
        node="drive0",
        target="target0",
        sync="full",
        max_workers=1,
        max_chunk=65536,
        on_target_error="stop",
        auto_dismiss=False,
        faults=(Fault(request="write", offset=65536, times=2),),
    ),
    JobResume(job="job0"),
    JobCancel(job="job0"),
)
"""A job that stops at an error, goes on, stops again, and is cancelled."""
