# Two stages: one builds, the other holds the binary, the certificate authorities and nothing more.
#
#   docker build -t eclusa .
#   docker run --rm -p 127.0.0.1:3000:3000 -v eclusa:/data \
#     -e ECLUSA__AUTH__WITHOUT_KEYS=allow-beyond-loopback \
#     -e ECLUSA__HTTP__ALLOWED_HOSTS='["localhost"]' eclusa
ARG RUST_VERSION=1
ARG DEBIAN=bookworm

FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS build
WORKDIR /src
COPY . .
# The caches belong to the builder, so the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked \
    && strip -o /eclusa target/dist/eclusa

FROM debian:${DEBIAN}-slim
# TLS to PostgreSQL and RabbitMQ is verified against the system's authorities, which have to be new
# rather than pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 eclusa \
    && useradd --uid 10001 --gid eclusa --no-create-home --home-dir /data \
        --shell /usr/sbin/nologin eclusa \
    && install -d -o eclusa -g eclusa /data
COPY --from=build /eclusa /usr/local/bin/eclusa
USER 10001:10001
WORKDIR /data
VOLUME /data
# A container that listens on its own loopback serves nobody. Without API keys Eclusa refuses this
# address, unless auth.without_keys says that the network is private.
ENV ECLUSA__HTTP__BIND=0.0.0.0 \
    ECLUSA__DATA_DIR=/data
EXPOSE 3000
# Whether the process answers. Not whether it is ready: an orchestrator that replaces unhealthy
# containers would only make a database's outage worse. bash speaks TCP by itself, so the image
# needs no curl. Change the port with PORT, which this follows.
HEALTHCHECK --interval=10s --timeout=3s --start-period=40s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${PORT:-3000} && printf 'GET /health/live HTTP/1.0\\r\\n\\r\\n' >&3 && read -r status <&3 && [[ $status == *' 200 '* ]]"]
ENTRYPOINT ["eclusa"]
