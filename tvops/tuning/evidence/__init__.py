"""Before/after proof on this host: probes, interleaved A/B blocks, and the report of what they showed."""
