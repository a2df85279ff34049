# The binary that `make build` made and nothing else: no shell, no libc, no root. For any processor;
# Docker's older builder takes another one than its own only where nothing stands before the copies.
FROM scratch
COPY tp0 /tp0
# scratch has no mkdir: an empty folder, so that the user has a place of its own to write to.
COPY --chown=10001:10001 docker/data /data
USER 10001:10001
WORKDIR /data
HEALTHCHECK --interval=10s --timeout=3s CMD ["/tp0", "-mode=health"]
ENTRYPOINT ["/tp0"]
ARG VERSION=dev
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="tp0" \
      org.opencontainers.image.description="A lottery's central office, and its agencies' client" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="MIT"
