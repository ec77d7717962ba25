"""Looks again and again whether a running stack and its host are as its profile wants them. Writes nothing.

effects of the stack ─► stack_look: /proc, CONFIG GET, the file that is held ─┐
places of the host ───► host_look: by the plan of `tvops tune` ───────────────┴─► Sighting ─► memory ─► Knob
"""
