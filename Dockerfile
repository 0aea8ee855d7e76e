# docker build --target cloud -t sideplug-cloud .
# docker build --target device -t sideplug-device .
# The cloud image takes torch from the index pip is set to; give one with CPU builds by
# --build-arg PIP_EXTRA_INDEX_URL=... to leave the CUDA libraries out.

FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY protocol protocol
COPY adapters adapters
COPY cloud_service cloud_service
COPY device_agent device_agent

FROM build AS build-cloud
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv /opt/sideplug && /opt/sideplug/bin/pip install -c constraints.txt '.[cloud]'

FROM build AS build-device
RUN python -m venv /opt/sideplug && /opt/sideplug/bin/pip install -c constraints.txt '.[device]'

FROM python:3.11-slim AS base
RUN useradd --create-home --uid 10001 sideplug && install -d -o sideplug /data
ENV PATH=/opt/sideplug/bin:$PATH PYTHONUNBUFFERED=1
USER sideplug
VOLUME /data

FROM base AS cloud
COPY --from=build-cloud /opt/sideplug /opt/sideplug
# Compiled kernels outlive the container like everything else that is made once.
ENV SIDEPLUG_CACHE=/data NUMBA_CACHE_DIR=/data/compiled
EXPOSE 8471
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8471/health', timeout=4)"]
# A container has to listen on every address to be reached: add keys, and TLS here or before it.
CMD ["sideplug-cloud", "serve", "--host", "0.0.0.0", "--insecure"]

FROM base AS device
COPY --from=build-device /opt/sideplug /opt/sideplug
ENV SIDEPLUG_HOME=/data
HEALTHCHECK --interval=60s --timeout=20s CMD ["sideplug", "status", "--json"]
ENTRYPOINT ["sideplug"]
CMD ["status"]
