"""The sources: where audio comes from.

Law: a source delivers chunks whose positions count every sample, including lost ones. It raises
`SourceError` or `AudioError` and never decides what to do about it.

base has the interface and picks the source for a configuration; wav, pcm and microphone are the
sources; recording reads files. To add a source: a module like wav, and a line in `base.make_source`.
"""
