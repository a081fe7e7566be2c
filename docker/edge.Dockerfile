# The agent alone: numpy, onnxruntime, paho, msgspec. No torch, no web framework.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE millwright.py ./
COPY protocol protocol
COPY edge_agent edge_agent
COPY export export
COPY server server
RUN python -m venv /opt/millwright && /opt/millwright/bin/pip install --no-cache-dir -c requirements.lock '.[identity]' \
    && find /opt/millwright -name __pycache__ -prune -exec rm -rf {} +

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/millwright --create-home millwright
COPY --from=build /opt/millwright /opt/millwright
ENV PATH=/opt/millwright/bin:$PATH PYTHONUNBUFFERED=1
USER millwright
VOLUME /var/lib/millwright
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["millwright", "agent", "status", "--config", "/etc/millwright/agent.toml", "--json"]
ENTRYPOINT ["millwright", "agent"]
CMD ["run", "--config", "/etc/millwright/agent.toml"]
