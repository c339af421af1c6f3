# docker build -t keymount .
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /keymount .

# Nothing but the program and the certificates that it trusts https servers by.
FROM scratch
LABEL org.opencontainers.image.title="keymount" \
      org.opencontainers.image.description="A provider for the Kubernetes Secrets Store CSI driver" \
      org.opencontainers.image.source="https://github.com/keymount/keymount" \
      org.opencontainers.image.documentation="https://github.com/keymount/keymount/blob/main/README.md" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /keymount /keymount
ENTRYPOINT ["/keymount"]
CMD ["serve"]
