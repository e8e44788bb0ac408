"""Findings as files that stand alone: reproducers that need QEMU, and nothing of qbprop."""
