# docker build -t keymount .
#
#   --platform linux/arm64   another processor: Go compiles across, nothing is emulated
#   --build-arg BASE=...     a base in place of an empty one: gcr.io/distroless/static-debian12
#   --build-arg GO=...       a golang:1.26 from elsewhere, where Docker Hub is out of reach;
#                            e2e/image runs this file without any registry
#   --build-arg VERSION=...  for the labels: the tag; REVISION is the commit and CREATED a
#                            time as in RFC 3339
ARG GO=golang:1.26
ARG BASE=scratch

FROM --platform=$BUILDPLATFORM ${GO} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
# The version of the program is what Go makes of git: the context has to hold .git.
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -o /keymount .
# A label may not claim another version than the program.
ARG VERSION=
RUN built=$(go version -m /keymount | sed -n 's/^\tmod\t[^\t]*\t\([^\t]*\).*/\1/p'); \
    [ -z "$VERSION" ] || [ "$VERSION" = "$built" ] || { echo "VERSION is $VERSION, and git makes it $built" >&2; exit 1; }

# Nothing but the program and the certificates that it trusts https servers by.
FROM ${BASE}
ARG VERSION=
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="keymount" \
      org.opencontainers.image.description="A provider for the Kubernetes Secrets Store CSI driver" \
      org.opencontainers.image.source="https://github.com/keymount/keymount" \
      org.opencontainers.image.documentation="https://github.com/keymount/keymount/blob/main/README.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /keymount /keymount
ENTRYPOINT ["/keymount"]
CMD ["serve"]
