FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

RUN useradd --create-home --uid 10001 ragq && install --directory --owner ragq --group ragq --mode 0700 /data
WORKDIR /app

# The lock file has the tools for development too; its hashes are worth the size.
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --no-deps --no-build-isolation .

USER ragq
WORKDIR /home/ragq
ENV RAGQ_DATA_DIR=/data
VOLUME /data
EXPOSE 8000
CMD ["ragq", "serve", "--host", "0.0.0.0"]
