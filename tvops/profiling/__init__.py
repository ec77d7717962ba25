"""What `tvops profile` does: finds the process, runs a profiler on it, and keeps what it found."""
