"""Detectors and incidents.

`detectors` decides (pure), `facts` reads what it decides on, `watch` looks every few seconds, `book` is the only writer.
"""
