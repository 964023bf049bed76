# Two images from one file: `docker build --target service .` and `docker build --target page .`;
# with `--build-arg OPERATOR=1` they can do what requirements-operator.txt is for. The pattern in the
# COPY of operations/ lets a build succeed without that folder. The program writes to /tmp alone, and
# to /data, where a volume may keep the history's SQLite file.
FROM python:3.13-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
RUN useradd --uid 10001 --no-create-home app && install --directory --owner=10001 /data

FROM base AS service
ARG OPERATOR=
COPY requirements-service.txt .
COPY requirements-operator.txt .
RUN pip install --no-cache-dir -r requirements-service.txt ${OPERATOR:+-r requirements-operator.txt}
COPY common common
COPY operation[s] operations/
COPY webhook_service webhook_service
USER 10001
ENV PORT=3001
EXPOSE 3001
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
  CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health', timeout=4)"]
CMD ["gunicorn", "-c", "webhook_service/gunicorn.conf.py", "webhook_service:create_app()"]

FROM base AS page
ARG OPERATOR=
COPY requirements.txt .
COPY requirements-operator.txt .
RUN pip install --no-cache-dir -r requirements.txt ${OPERATOR:+-r requirements-operator.txt}
COPY common common
COPY operation[s] operations/
COPY .streamlit .streamlit
COPY page page
COPY streamlit_app.py .
USER 10001
ENV PORT=8501
EXPOSE 8501
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
  CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ[\"PORT\"]}/_stcore/health', timeout=4)"]
CMD ["python", "-m", "page"]
