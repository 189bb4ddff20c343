"""The service: the daemon and its parts.

Law: one direction. Captures and the audio socket fill the inbox; one thread takes from it and runs
the detector; events go to the bus, and from there to subscribers. A live source never waits for the
detector, and the detector never waits for a subscriber. Recordings and pipes do wait.

    capture, audio_socket → inbox → detector → bus → jsonlines (through endpoints)

daemon starts and ends all of them, reload replaces configuration and model, control is what
outputs may change. Beside the path are health, signals, credentials and systemd, and in `outputs`
clips, metrics, the live page, MQTT and Wyoming.
"""
