"""All rules of the model in one class; a wrong model is a subclass of a few lines."""

from qbprop_model.exports import ExportRules
from qbprop_model.faults import FaultRules
from qbprop_model.lifecycle import LifecycleRules
from qbprop_model.mirrors import MirrorRules
from qbprop_model.storage import StorageRules


class Rules(StorageRules, ExportRules, MirrorRules, LifecycleRules, FaultRules):
    """What QEMU keeps, or is documented to keep: bitmaps, disks, exports, jobs and faults."""
