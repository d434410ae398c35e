# The service image: runtime, service and the shipped models. No torch, no compiler, no shell tools needed.
#   docker build --target cpu .      docker build --target gpu .
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1
RUN python -m venv /opt/clearwatch
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
# What writes the list of what is in the image (/opt/clearwatch/sbom.json, CycloneDX) stays out of it.
RUN python -m venv /opt/tools && /opt/tools/bin/pip install --quiet --constraint constraints.txt cyclonedx-bom
ENV PATH=/opt/clearwatch/bin:$PATH
COPY runtime runtime
COPY service service

FROM build AS build-cpu
RUN pip install --quiet --constraint constraints.txt '.[cpu]' && pip uninstall --quiet --yes pip setuptools
RUN /opt/tools/bin/cyclonedx-py environment --output-file /opt/clearwatch/sbom.json /opt/clearwatch/bin/python

FROM build AS build-gpu
RUN pip install --quiet --constraint constraints.txt '.[gpu]' && pip uninstall --quiet --yes pip setuptools
RUN /opt/tools/bin/cyclonedx-py environment --output-file /opt/clearwatch/sbom.json /opt/clearwatch/bin/python

FROM ${BASE_IMAGE} AS base
RUN useradd --system --uid 10001 --no-create-home clearwatch
ENV PATH=/opt/clearwatch/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Inside the container only, until a host and a token are given: docs/operations.md.
ENV CLEARWATCH_HOST=127.0.0.1 CLEARWATCH_PORT=8000 CLEARWATCH_MODELS_DIR=/models \
    CLEARWATCH_CALIBRATIONS_DIR=/calibrations
COPY models /models
# A volume mounted here takes its owner from the image.
RUN install --directory --owner=clearwatch /calibrations
USER clearwatch
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s CMD ["python", "-m", "service.healthcheck"]
CMD ["python", "-m", "service"]

FROM base AS gpu
COPY --from=build-gpu /opt/clearwatch /opt/clearwatch

# Last, so that a build without a target makes it.
FROM base AS cpu
COPY --from=build-cpu /opt/clearwatch /opt/clearwatch
