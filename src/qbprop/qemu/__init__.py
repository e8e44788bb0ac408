"""The only code that talks to QEMU: its programs, its process, its monitor, its guest I/O."""
