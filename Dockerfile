# One image for every process; compose.yaml and the units in deploy/systemd/ say which one runs. Debian and Python come from the base image:
# give BASE with a digest to build the same bytes again.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements.lock /build/requirements.lock
RUN python -m venv /opt/signalbox/venv \
    && /opt/signalbox/venv/bin/pip install --require-hashes --only-binary :all: -r /build/requirements.lock \
    && /opt/signalbox/venv/bin/pip uninstall --yes pip
COPY manage.py /opt/signalbox/app/
COPY pyproject.toml /opt/signalbox/app/
COPY llms.txt /opt/signalbox/app/
COPY examples /opt/signalbox/app/examples
COPY tenants /opt/signalbox/app/tenants
COPY tools /opt/signalbox/app/tools
COPY approvals /opt/signalbox/app/approvals
COPY runs /opt/signalbox/app/runs
COPY console /opt/signalbox/app/console
COPY templates /opt/signalbox/app/templates
COPY static /opt/signalbox/app/static
COPY docs/runbooks /opt/signalbox/app/docs/runbooks
WORKDIR /opt/signalbox/app
RUN SECRET_KEY=of-the-build SIGNALBOX_HOME=/tmp/build SIGNALBOX_MANIFEST=1 SIGNALBOX_STATIC=/opt/signalbox/static \
    DATABASE_URL=postgresql://nobody@127.0.0.1/none /opt/signalbox/venv/bin/python manage.py collectstatic --noinput \
    && /opt/signalbox/venv/bin/python -m compileall -q /opt/signalbox/app

FROM ${BASE}
RUN groupadd --gid 10001 signalbox \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/signalbox --shell /usr/sbin/nologin signalbox \
    && install -d -o signalbox -g signalbox -m 0700 /var/lib/signalbox
COPY --from=build /opt/signalbox /opt/signalbox
ENV PATH=/opt/signalbox/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    SIGNALBOX_HOME=/var/lib/signalbox SIGNALBOX_STATIC=/opt/signalbox/static SIGNALBOX_MANIFEST=1
WORKDIR /opt/signalbox/app
USER 10001:10001
VOLUME ["/var/lib/signalbox"]
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["python"]
CMD ["-m", "uvicorn", "console.asgi:application", "--host", "0.0.0.0", "--port", "8000", "--ws", "websockets-sansio", "--ws-max-size", "65536", "--timeout-graceful-shutdown", "5", "--no-access-log"]
