"""The core: samples in, detections out.

Law: no I/O. The modules import no asyncio, threading, socket, time or logging, and nothing of
kwsd.service, kwsd.sources or kwsd.commands. Only model and runtime open a file. A test checks this.

In the order of the path: frontend, state, model (with card and runtime), decision. stream_batch
runs them for many streams side by side, spotter for one, clip for single words, and sweep for every
threshold at once, from which calibration chooses. near_misses finds what came close; rows are arrays of streams.
"""
