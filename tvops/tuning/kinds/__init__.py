"""The drivers: one module for each kind of knob, reading and writing it."""
