"""A file system in user space that passes everything through, counts and fails by order: see tests/fuse/mount.py."""
