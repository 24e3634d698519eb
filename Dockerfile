# The forge as an image: for `forge` on any machine with an engine, and for the pods that a Prefect worker starts.
#
#   docker build --tag agent-forge:0.1.0 .
#   docker run --rm --init --volume forge-checkpoints:/opt/prefect/checkpoints agent-forge:0.1.0 forge run --profile smoke
#
# On Linux the default torch brings CUDA's libraries, several GB. Where no GPU is, give pip the index of torch's CPU
# builds: --build-arg PIP_EXTRA_INDEX_URL=… (pip prefers 2.13.0+cpu to 2.13.0, and the lock accepts both).
FROM python:3.11-slim

ARG PIP_EXTRA_INDEX_URL=""

# Prefect's working directory for deployments with an image of their own; runs are written to checkpoints/ in it.
WORKDIR /opt/prefect
RUN useradd --uid 1000 --create-home forge \
 && mkdir checkpoints \
 && chown forge:forge checkpoints

# The packages change seldom, the code often: in this order a rebuild takes seconds.
COPY requirements.lock ./
RUN python -m pip install --no-cache-dir --disable-pip-version-check --requirement requirements.lock

COPY pyproject.toml README.md LICENSE prefect.yaml ./
COPY configs ./configs
COPY phases ./phases
COPY evaluation ./evaluation
COPY deployment ./deployment
COPY distillation ./distillation
COPY flows ./flows
RUN python -m pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --editable .

# By number, so that Kubernetes can see that it is not root.
USER 1000:1000
# A container sees all cores of its host: without a number torch starts a thread for each, whatever the CPU limit says.
ENV HOME=/home/forge \
    OMP_NUM_THREADS=2 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

# No ENTRYPOINT: a Prefect worker gives the whole command, `prefect flow-run execute`.
CMD ["forge", "phases"]
