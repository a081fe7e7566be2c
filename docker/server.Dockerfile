# The server and its training worker. For a CPU-only torch, build with
#   --build-arg TORCH_INDEX=<an index that serves CPU builds>
FROM python:3.11.14-slim-bookworm AS build
ARG TORCH_INDEX=""
WORKDIR /src
RUN python -m venv /opt/millwright
COPY requirements.lock ./
RUN /opt/millwright/bin/pip install --no-cache-dir -c requirements.lock ${TORCH_INDEX:+--index-url $TORCH_INDEX} torch==2.13.0
COPY pyproject.toml README.md LICENSE millwright.py ./
COPY protocol protocol
COPY edge_agent edge_agent
COPY export export
COPY server server
RUN /opt/millwright/bin/pip install --no-cache-dir -c requirements.lock '.[server,train,postgres]' \
    && find /opt/millwright -name __pycache__ -prune -exec rm -rf {} +

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/millwright --create-home millwright
COPY --from=build /opt/millwright /opt/millwright
ENV PATH=/opt/millwright/bin:$PATH PYTHONUNBUFFERED=1
USER millwright
VOLUME /var/lib/millwright
EXPOSE 8420
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8420/api/v1/health', timeout=4)"]
ENTRYPOINT ["millwright", "server"]
CMD ["run", "--config", "/etc/millwright/server.toml"]
