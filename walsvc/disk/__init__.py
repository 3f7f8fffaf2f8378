"""The kernel's side of the log: the Disk protocol (base), its backends (threads, uring, sim) and the choice between them."""
