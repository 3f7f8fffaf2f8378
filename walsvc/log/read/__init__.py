"""Reading: groups, cursors and iterations over what is durable. It knows files and the small protocol `records.Segments`, not the writer."""
