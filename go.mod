module github.com/keymount/keymount

go 1.26.0

require (
	github.com/go-jose/go-jose/v4 v4.1.8
	golang.org/x/sync v0.24.0
	gopkg.in/yaml.v3 v3.0.1
)
