"""The shadow model: what QEMU must do, derived from the operations alone."""
