"""In what QEMUs differ that all keep the rules.

A :class:`Traits` belongs to an engine and holds plain values: the model never knows a version.
Which QEMU has which is found out in ``qbprop.qemu.features``, whose table also tells how.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """The defaults are those of the QEMU that the rules were first settled on.

    ``groups_checked_first``: a grouped transaction is refused for an action that cannot be
    grouped before any of its actions is tried, and ``abort`` is such an action (3.2).
    ``copy_bitmap_on_filter``: the bitmap of what a job must still copy belongs to the job's
    filter and not to its disk (4).
    ``unmap_needs_discard``: zeroing frees no cluster of a node that was opened without
    ``discard=unmap``, such as a job's filter (5.3).
    ``blockdev_backup_x_perf``: a backup copies several job clusters at once, unless it is told
    otherwise; without, it copies one after the other, has the host copy where that can, cannot be
    told anything, and notices late that it is paused or has nothing left (6.7).
    ``merge_checks_target_last``: a merge is refused for its sources before its target (2.2).
    ``exports_check_use_first``: a bitmap that is in use is refused for that before a read-only
    export refuses one that records (2.2).
    ``raw_takes_backing``: a raw image is opened with a backing file; what comes of it is
    open (6.1).
    ``empty_discards_count``: a discard of nothing is a request that the next flush flushes (7.2).
    ``discards_split``: a discard gets to a filter in parts, cut at the clusters of what is
    below it (7.2).
    ``graph_waits``: no node can be opened, closed or looked into with HMP ``qemu-io`` while a
    request is in flight, so that no guest's write can be held (7.3).
    ``filter_end_flushes``: a job's filter flushes its disk as it goes (7.2).
    ``commit_skips_zeroes``: a commit writes no zeroes to a base that is nothing but zeroes, unless
    that has ``detect-zeroes=unmap``; a mirror none where it knows that its target has them (9).
    ``mirror_bitmap_on_filter``: the bitmap of what a mirror must still copy belongs to its filter
    and not to its disk, and does not record (9).
    ``cancelled_commit_freezes``: the base of a commit that was cancelled with an error is read-only
    again (9).
    ``skip_broken_bitmaps``: ``qemu-img convert`` looks for inconsistent bitmaps before it begins,
    and can leave them out (8.8).
    ``copy_before_write``: a job's filter keeps two bitmaps for itself (4).
    ``human_monitor_command``: there is a human monitor, which adds drives, writes compressed data
    and holds writes (10.1); a storage daemon has none.
    ``migrate``: there is live migration; a storage daemon has none.
    """

    groups_checked_first: bool = False
    copy_bitmap_on_filter: bool = False
    unmap_needs_discard: bool = False
    merge_checks_target_last: bool = False
    exports_check_use_first: bool = False
    raw_takes_backing: bool = False
    empty_discards_count: bool = True
    discards_split: bool = True
    graph_waits: bool = False
    filter_end_flushes: bool = False
    commit_skips_zeroes: bool = False
    mirror_bitmap_on_filter: bool = False
    cancelled_commit_freezes: bool = False
    skip_broken_bitmaps: bool = True
    blockdev_backup_x_perf: bool = True
    copy_before_write: bool = True
    human_monitor_command: bool = True
    migrate: bool = True
