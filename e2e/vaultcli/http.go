package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// errRefused wraps what Vault answered in place of data.
var errRefused = errors.New("refused")

// do asks Vault, and returns the data of its answer; nil when it has none.
func (c *cli) do(ctx context.Context, method, path string, body any) (map[string]any, error) {
	var sent io.Reader = http.NoBody
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("write a request: %w", err)
		}
		sent = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.address+"/v1/"+strings.Trim(path, "/"), sent)
	if err != nil {
		return nil, fmt.Errorf("write a request: %w", err)
	}
	request.Header.Set("X-Vault-Token", c.token)
	request.Header.Set("X-Vault-Request", "true")
	answer, err := c.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask Vault: %w", err)
	}
	defer func() { _ = answer.Body.Close() }() // only read
	return decode(answer)
}

func decode(answer *http.Response) (map[string]any, error) {
	const most = 16 << 20
	text, err := io.ReadAll(io.LimitReader(answer.Body, most))
	if err != nil {
		return nil, fmt.Errorf("read Vault's answer: %w", err)
	}
	var content struct {
		Data   map[string]any `json:"data"`
		Errors []string       `json:"errors"`
	}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &content); err != nil {
			return nil, fmt.Errorf("Vault answers %s, and not in JSON", answer.Status) //nolint:staticcheck // ST1005: a name
		}
	}
	switch {
	case answer.StatusCode == http.StatusNotFound && len(content.Errors) == 0:
		return nil, fmt.Errorf("%w: no value found at %s", errRefused, answer.Request.URL.Path)
	case answer.StatusCode >= http.StatusBadRequest:
		return nil, fmt.Errorf("%w: %s %s: %s: %s", errRefused, answer.Request.Method, answer.Request.URL.Path, answer.Status, strings.Join(content.Errors, "; "))
	}
	return content.Data, nil
}
