"""Where a log lives when it is not a directory: engines that other people keep well, below the same interface."""
