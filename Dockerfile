# One image for the workers, the reference Executor, Flower and the exporter of metrics; docker-compose.yml says which
# runs where.
FROM python:3.11-slim

ENV MALLOC_ARENA_MAX=2 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /app
COPY requirements/image.txt requirements/
RUN pip install --require-hashes --requirement requirements/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY dispatcher dispatcher
COPY workers workers
COPY executor executor
COPY conformance conformance
COPY config config
# A strict umask makes a clone readable for its owner only, who has no account in the image.
RUN chmod -R a+rX . && pip install --no-deps --no-build-isolation .

# Waiting for HTTP needs no root.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin dispatcher && \
    install --directory --owner dispatcher --mode 0700 /var/lib/executor-token
USER dispatcher

CMD ["celery", "--app", "dispatcher.worker_app", "worker", "--loglevel", "INFO"]
