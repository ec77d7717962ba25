"""Open-loop load, scenarios and results: what `tvops bench` is made of."""
