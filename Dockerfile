# Three images: `docker build --target controller .`, `--target operator` and `--target api`.
# BASE_IMAGE may be any Debian; Python is installed where it is missing.
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS python
RUN command -v python3 >/dev/null \
    || { apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 \
         && rm -rf /var/lib/apt/lists/*; }

# Builds the wheel and the virtual environment; nothing of this stage but /opt/shardcluster is kept.
FROM python AS build
RUN python3 -c 'import ensurepip, venv' 2>/dev/null \
    || { apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv; }
WORKDIR /src
COPY requirements/build.txt requirements/image.txt requirements/
RUN python3 -m venv /build \
    && /build/bin/pip install --quiet --no-cache-dir --require-hashes -r requirements/build.txt \
    && python3 -m venv --without-pip /opt/shardcluster \
    && /build/bin/pip --python /opt/shardcluster/bin/python install --quiet --no-cache-dir \
       --require-hashes -r requirements/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY api api
COPY operator operator
RUN /build/bin/pip wheel --quiet --no-cache-dir --no-deps --no-build-isolation -w /wheels . \
    && /build/bin/pip --python /opt/shardcluster/bin/python install --quiet --no-deps /wheels/*.whl

# A base with pip brings it in vain: nothing is installed into a running container.
FROM python AS app
COPY --from=build /opt/shardcluster /opt/shardcluster
RUN rm -rf /usr/bin/pip* /usr/local/bin/pip* /usr/lib/python3*/ensurepip /usr/local/lib/python3*/ensurepip \
           /usr/lib/python3/dist-packages/pip* /usr/local/lib/python3*/site-packages/pip* \
    && install -d -o 10001 -g 10001 /data
ENV PATH=/opt/shardcluster/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /data

FROM app AS controller
EXPOSE 8090
VOLUME /data
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8090/healthz', timeout=2)"]
ENTRYPOINT ["shardctl"]
CMD ["controller", "--help"]

FROM app AS operator
EXPOSE 8081
ENTRYPOINT ["python3", "-m", "shardcluster_operator"]

FROM app AS api
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["python3", "-m", "shardcluster_api"]
CMD ["--help"]
