"""kwsd listens to audio and tells other programs which keyword was said.

Read the modules in the order of the path that a sample takes: audio, sources, frontend,
runtime, memory, model, decision, batcher, spotter, events, bus, transports, daemon, cli.
"""

__version__ = "0.1.0"
