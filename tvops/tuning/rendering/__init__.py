"""What a profile says, as the files that make it so at every boot: pure functions from settings to text."""
