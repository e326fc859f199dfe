"""How `pipeline.decode` turns a payload into a row: one at a time, or thousands that are written alike at once."""
