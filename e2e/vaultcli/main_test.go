package main_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// vaultBinary is what TestMain built.
var vaultBinary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	folder, err := os.MkdirTemp("", "vaultcli-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a folder for the program:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(folder) }()
	vaultBinary = filepath.Join(folder, "vault")
	//nolint:gosec // G204: a go build of our own source
	if out, err := exec.CommandContext(context.Background(), "go", "build", "-buildvcs=false", "-o", vaultBinary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build vault: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// What it does not know it does not do: no request gets to Vault.
func TestMistakes(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("Vault was asked") }))
	defer server.Close()
	for args, want := range map[string]string{ //nolint:gosec // G101: messages
		"":                               "knows only auth enable, auth list, kv put, list, policy write, read, secrets enable, secrets list, write; see e2e/vaultcli",
		"token lookup":                   "vault token lookup: this stand-in for the Vault CLI knows only",
		"kv get secret/x":                "vault kv get secret/x: this stand-in for the Vault CLI knows only",
		"write -format=json secret/x a=": "vault write: flag provided but not defined: -format, to this stand-in for the Vault CLI",
		"write secret/x":                 `vault write: wants PATH KEY=VALUE..., got ["secret/x"]`,
		"write secret/x a":               `vault write: "a" is not of the form KEY=VALUE`,
		"write secret/x a=1 a=2":         "vault write: a is there twice, which this stand-in for the Vault CLI does not know",
		"write secret/x a=@none":         "vault write: a: read a value: open none: no such file or directory",
		"kv put secret/x":                `vault kv put: wants PATH KEY=VALUE..., got ["secret/x"]`,
		"secrets enable":                 "vault secrets enable: wants TYPE, got []",
		"auth enable -local kubernetes":  "vault auth enable: flag provided but not defined: -local",
		"auth list -detailed":            "vault auth list: flag provided but not defined: -detailed",
	} {
		t.Run(args, func(t *testing.T) {
			out, code := call(t, server.URL, "", strings.Fields(args)...)
			if code != 1 || !strings.Contains(out, want) {
				t.Errorf("exit code %d, %s\nwant 1 and %s", code, out, want)
			}
		})
	}
	t.Run("no address", func(t *testing.T) {
		if out, code := call(t, "", "", "auth", "list"); code != 1 || out != "set VAULT_ADDR and VAULT_TOKEN\n" {
			t.Errorf("exit code %d, %s", code, out)
		}
	})
}

// What Vault refuses has the exit code 2, as with the real one, and no data.
func TestRefused(t *testing.T) {
	answers := map[string]func(http.ResponseWriter){
		"vault read: refused: GET /v1/secret/x: 403 Forbidden: permission denied": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = fmt.Fprint(w, `{"errors":["permission denied"]}`)
		},
		"vault read: refused: no value found at /v1/secret/x": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = fmt.Fprint(w, `{"errors":[]}`)
		},
	}
	for want, answer := range answers {
		t.Run(want, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }))
			defer server.Close()
			if out, code := call(t, server.URL, "", "read", "secret/x"); code != 2 || out != want+"\n" {
				t.Errorf("exit code %d, %s", code, out)
			}
		})
	}
}

// Values come from the command line, a file, or standard input.
func TestValues(t *testing.T) {
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte("from the file"), 0o600); err != nil {
		t.Fatal(err)
	}
	var sent string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body := make([]byte, r.ContentLength)
		_, _ = r.Body.Read(body)
		sent = fmt.Sprintf("%s %s %s", r.Method, r.URL.Path, body)
	}))
	defer server.Close()
	out, code := call(t, server.URL, "from standard input", "write", "pki/roles/x", "a=b=c", "file=@"+file, "input=-")
	if want := `PUT /v1/pki/roles/x {"a":"b=c","file":"from the file","input":"from standard input"}`; code != 0 || sent != want {
		t.Errorf("exit code %d, %s\nsent %s\nwant %s", code, out, sent, want)
	}
}

// call runs the program and returns all that it wrote.
func call(t *testing.T, address, input string, args ...string) (out string, code int) {
	t.Helper()
	command := exec.CommandContext(t.Context(), vaultBinary, args...) //nolint:gosec // G204: the program that TestMain built
	command.Dir = t.TempDir()
	command.Env = []string{"VAULT_ADDR=" + address, "VAULT_TOKEN=token"}
	command.Stdin = strings.NewReader(input)
	text, _ := command.CombinedOutput()
	return string(text), command.ProcessState.ExitCode()
}
