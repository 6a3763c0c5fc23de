"""Ready-made latency tables, shipped as examples; a name of one may be written where a command takes a table's file."""
