"""A second copy of a log in a stream: every committed group is shipped, and a log is made of it again."""
