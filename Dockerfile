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
 && /opt/walsvc/bin/pip install --no-cache-dir --disable-pip-version-check '.[uvloop]' \
 && /opt/walsvc/bin/pip uninstall --yes --quiet setuptools pip

FROM ${BASE}
RUN groupadd --gid 10001 walsvc \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin walsvc \
 && install -d -o 10001 -g 10001 /data
COPY --from=build /opt/walsvc /opt/walsvc
ENV PATH=/opt/walsvc/bin:$PATH
USER 10001:10001
WORKDIR /data
VOLUME /data
ENTRYPOINT ["walsvc"]
CMD ["--help"]
