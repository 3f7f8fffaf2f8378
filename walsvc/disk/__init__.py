"""What touches the kernel: the Disk protocol (base), its backends (threads, uring, sim) and the choice between them."""
