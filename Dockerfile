# kwsd for one machine's sound card, or for audio from other programs: see docs/service.md, "In a container".
#     docker build -t kwsd .
FROM python:3.13-slim

# PortAudio is what pip cannot install. The plugins let ALSA's default device be a PulseAudio or PipeWire server.
# Debian keeps only the newest version of a package, so none is named.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends -y libportaudio2 libasound2-plugins \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/kwsd
COPY locks/run.txt locks/run.txt
RUN pip install --no-cache-dir --require-hashes -r locks/run.txt

COPY pyproject.toml README.md LICENSE ./
COPY kwsd kwsd
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && useradd --system --uid 977 --groups audio kwsd \
    && mkdir /run/kwsd /var/lib/kwsd \
    && chmod 1777 /run/kwsd /var/lib/kwsd

COPY systemd/container.yaml /etc/kwsd.yaml
USER 977
ENV RUNTIME_DIRECTORY=/run/kwsd
VOLUME /var/lib/kwsd
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7311/livez', timeout=3)"]
ENTRYPOINT ["kwsd"]
CMD ["run", "--config", "/etc/kwsd.yaml"]
