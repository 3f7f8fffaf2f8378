"""A log in a stream of NATS JetStream: its messages, its files, and one writer after the other."""
