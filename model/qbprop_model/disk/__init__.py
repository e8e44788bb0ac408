"""How images change: bytes and allocation, layer by layer. Override one method for another rule.

Rules: semantics 1.2, 5.3 and 6.2.
"""

from qbprop_model.disk.resizes import ResizeRules


class DiskRules(ResizeRules):
    """All rules of images."""
