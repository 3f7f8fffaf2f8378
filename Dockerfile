ARG BASE=python:3.13-slim-bookworm
FROM ${BASE} AS build
# Debian's own python3 keeps its headers in python3-dev; the official Python images bring theirs.
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev liburing-dev \
 && include="$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')" \
 && { test -e "$include/Python.h" || apt-get install -y --no-install-recommends python3-dev; } \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# liburing is linked statically, so the environment is all that the next stage needs. pip has done its work by then.
RUN python3 -m venv /opt/walsvc \
 && /opt/walsvc/bin/pip install --no-cache-dir --disable-pip-version-check '.[service,crypto,uvloop]' \
 && /opt/walsvc/bin/pip uninstall --yes --quiet setuptools pip

FROM ${BASE}
RUN groupadd --gid 10001 walsvc \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin walsvc \
 && install -d -o 10001 -g 10001 /data \
 && install -d -o 10001 -g 10001 -m 0755 /run/walsvc
COPY --from=build /opt/walsvc /opt/walsvc
ENV PATH=/opt/walsvc/bin:$PATH
USER 10001:10001
WORKDIR /data
VOLUME /data /run/walsvc
# Reached through the Unix socket, by containers that mount /run/walsvc; the HTTP side only from inside. So nothing is open
# until somebody asks for it: a TCP port wants WALSVC_LISTEN with TLS and tokens, see docs/SERVICE.md.
ENV WALSVC_DATA=/data \
    WALSVC_UNIX=/run/walsvc/walsvc.sock \
    WALSVC_HTTP=127.0.0.1:7421 \
    WALSVC_STOP_SECONDS=8
# `docker stop` waits 10 s: the server is through with SIGTERM before.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m --retries=3 CMD ["walsvc", "health"]
ENTRYPOINT ["walsvc"]
CMD ["serve"]
