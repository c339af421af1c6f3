# Shorthand only: .ci/run has the checks, and each of these lines works without make.
.DEFAULT_GOAL := help
.PHONY: build test lint fuzz generate demo bench e2e ci words help

build: ; go build -trimpath -o keymount . ## the binary, ./keymount
test: ; go test -race ./... ## all tests, with the race detector
lint: ; .ci/run format lint ## gofmt and golangci-lint
fuzz: ; .ci/run fuzz ## every fuzz target for FUZZTIME (10s)
generate: ; go generate ./... ## docs/configuration.md from the structs of config
demo: ; go run . demo ## a mount, a rotation and a denial on this machine
bench: ; go test -run '^$$' -bench . -count 6 ./... ## benchmarks, for go tool -modfile=tools/benchstat/go.mod benchstat
e2e: ; .ci/run e2e ## real Vault, PostgreSQL, driver and kubelet, as root; the first time takes minutes
ci: ; .ci/run ## everything a change has to pass
words: ; @tools/words.sh ## words of the comments that describe where they could name
help: ; @sed -n 's/^\([a-z]*\): ;.* ## /\1\t/p' Makefile | expand -t 12 ## these lines
