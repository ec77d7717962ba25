"""Files for the monitoring around a stack, rendered from its targets.

``python -m tvops.deploy DIR [TARGETS]`` writes them; a test holds those in `deploy/` to what this renders.
"""
