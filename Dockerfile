# Three images:
#   gateway      the whole service: no torch, no Java, no shell, no distribution
#   bulk         the same with what `score` and `report` need beside
#   torchserve   a worker: TorchServe with ferserve's handlers
#
#   docker build --target gateway --tag ferserve-gateway:0.1.0 .
#   docker build --target bulk --tag ferserve-bulk:0.1.0 .
#   docker build --target torchserve --tag ferserve-torchserve:0.1.0 .
#   docker build --target torchserve --tag ferserve-torchserve:0.1.0-cuda \
#       --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
#
# Without a registry of images or packages: --build-arg BASE=... and, for a mounted wheelhouse, PIP_NO_INDEX=1 and
# PIP_FIND_LINKS=/wheels.
ARG BASE=python:3.11.14-slim-bookworm
ARG WORKER_BASE=${BASE}

# -------------------------------------------------------------------------------------------------------------- install
FROM ${BASE} AS install
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
WORKDIR /source
# Debian keeps one version of a package at a time: one pinned here would vanish.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY serving serving
COPY handlers handlers
COPY training training
COPY proto proto
RUN python3 -m venv /opt/ferserve \
    && /opt/ferserve/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt '.[gateway,otel]' \
    && cp LICENSE NOTICE /opt/ferserve/
COPY docker/image docker/image

# ---------------------------------------------------------------------------------------------------------------- build
FROM install AS build
RUN sh docker/image/build.sh /opt/ferserve /image

# ----------------------------------------------------------------------------------------------------------- bulk, build
FROM install AS bulk-build
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
RUN /opt/ferserve/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt '.[bulk]' \
    && sh docker/image/build.sh /opt/ferserve /image

# ----------------------------------------------------------------------------------------------------------------- bulk
FROM scratch AS bulk
LABEL org.opencontainers.image.title="ferserve bulk" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=bulk-build /image /
ENV PATH=/opt/ferserve/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1
USER 10001:10001
HEALTHCHECK NONE
ENTRYPOINT ["ferserve"]
CMD ["score", "--help"]

# -------------------------------------------------------------------------------------------------------------- gateway
FROM scratch AS gateway
LABEL org.opencontainers.image.title="ferserve gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
ENV PATH=/opt/ferserve/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1
USER 10001:10001
EXPOSE 50051 8090 8091
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8091/readyz', timeout=2)"]
ENTRYPOINT ["ferserve"]
CMD ["serve", "--host", "0.0.0.0"]

# ---------------------------------------------------------------------------------------------------- torchserve, build
# WORKER_BASE may be an image with CUDA; torch's own wheels bring CUDA's libraries, so that only the driver has to be there.
FROM ${WORKER_BASE} AS torchserve-build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY serving serving
COPY handlers handlers
COPY training training
COPY proto proto
COPY docker/image docker/image
RUN python3 -m venv /opt/ferserve \
    && /opt/ferserve/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt \
        --extra-index-url "${TORCH_INDEX}" '.[torchserve]' \
    && /opt/ferserve/bin/python docker/image/licences.py > /opt/ferserve/LICENCES.txt \
    && cp LICENSE NOTICE /opt/ferserve/

# ----------------------------------------------------------------------------------------------------------- torchserve
FROM ${WORKER_BASE} AS torchserve
LABEL org.opencontainers.image.title="ferserve TorchServe worker" \
      org.opencontainers.image.licenses="Apache-2.0"
# Debian keeps one version of a package at a time: one pinned here would vanish.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openjdk-17-jre-headless \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 ferserve \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin ferserve \
    && install --directory --owner 10001 --group 10001 /run/torchserve
COPY --from=torchserve-build /opt/ferserve /opt/ferserve
ENV PATH=/opt/ferserve/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1
USER 10001:10001
WORKDIR /run/torchserve
EXPOSE 7070 8080 8082
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/ping', timeout=2)"]
ENTRYPOINT ["ferserve", "torchserve", "serve"]
CMD ["--folder", "/run/torchserve", "--host", "0.0.0.0"]
