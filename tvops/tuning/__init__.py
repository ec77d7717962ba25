"""Host tuning: what a machine should be like for low latency."""
