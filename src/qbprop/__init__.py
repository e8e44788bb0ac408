"""qbprop: a stateful property tester for dirty bitmaps and backups in QEMU."""
