# tfnas in a container, installed from its wheel, with torch for CPUs.
#
#   docker build --tag tfnas .
#   docker run --rm -it --init --shm-size 2g --user "$(id -u):$(id -g)" --volume "$PWD:/work" tfnas demo --out results/demo
#
# --init: Ctrl-C reaches the launch, and ended processes are reaped. --shm-size: Ray keeps objects in shared memory.
# --user, --volume: results appear in the current folder, and belong to you. Configs are read from there, too.
# Torch with CUDA, for GPUs (never run on one): --build-arg TORCH_INDEX=https://pypi.org/simple
# Seen: the wheel, and commands from it as a user without a name. This file itself has not been built.
FROM python:3.11-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY nas nas
COPY experiments experiments
COPY analysis analysis
COPY tune_configs tune_configs
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt /wheels/
# First what rarely changes. Of two builds of one version, pip takes 2.14.1+cpu before 2.14.1.
RUN pip install --no-cache-dir --constraint /wheels/constraints.txt --extra-index-url "$TORCH_INDEX" torch torchvision
COPY --from=wheel /wheels/*.whl /wheels/
RUN pip install --no-cache-dir --constraint /wheels/constraints.txt --extra-index-url "$TORCH_INDEX" \
    "$(echo /wheels/tfnas-*.whl)[kernels]"
# `--user` gives a user without a name and without a home.
ENV HOME=/tmp USER=tfnas
WORKDIR /work
ENTRYPOINT ["tfnas"]
CMD ["--help"]
