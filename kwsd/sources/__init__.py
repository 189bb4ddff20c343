"""The sources: where audio comes from.

Law: a source delivers chunks whose positions count every sample, including lost ones. It raises
`SourceError` or `AudioError` and never decides what to do about it.

base has the interface and picks the source for a configuration; wav, pcm and microphone (with
sound_server) are the sources; recording reads files, and container finds where they end; header
describes a stream on the audio socket. docs/ARCHITECTURE.md says how to add a source.
"""
