"""What is wrong with a host, its servers and its settings for low latency, worst first."""
