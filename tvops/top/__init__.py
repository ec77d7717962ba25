"""`tvops top`: the latencies, targets and resources of running stacks, on a terminal. It only ever reads."""
