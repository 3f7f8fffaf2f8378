"""The log's extent: what truncations, purges, compaction and new keys do to its segments beside the writer."""
