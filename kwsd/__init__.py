"""kwsd listens to audio and tells other programs which keyword was said.

Read the modules in the order of the path that a sample takes: audio, sources, capture, frontend,
runtime, memory, model, decision, batcher, spotter, ear, events, bus, sockets, transports, daemon,
cli. Beside the path: health and systemd (is it heard, and who is told), clips (what is kept).
"""

__version__ = "0.1.0"
