package editor_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// install has npm install the language server of package-lock.json, once for each content of
// that file, and returns the server's script. npm checks each package against its hash.
func install(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place for the language server: %w", err)
	}
	lock, err := os.ReadFile("package-lock.json")
	if err != nil {
		return "", err
	}
	folder := filepath.Join(cache, "keymount-e2e", fmt.Sprintf("editor-%.8x", sha256.Sum256(lock)))
	script := filepath.Join(folder, "node_modules", "yaml-language-server", "bin", "yaml-language-server")
	if _, err := os.Stat(script); !errors.Is(err, fs.ErrNotExist) { //nolint:gosec // G703: the user's own cache
		return script, err
	}
	if err := os.MkdirAll(filepath.Dir(folder), 0o750); err != nil { //nolint:gosec // G703: the user's own cache
		return "", err
	}
	partial, err := os.MkdirTemp(filepath.Dir(folder), "editor-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(partial) }() //nolint:gosec // G703: the user's own cache; a failure leaves it
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(partial, name), text, 0o600); err != nil { //nolint:gosec // G703: the user's own cache
			return "", err
		}
	}
	command := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	command.Dir = partial
	if text, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("install the language server by npm: %w\n%s", err, text)
	}
	if err := os.Rename(partial, folder); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // G703: the user's own cache
		return "", err
	}
	return script, nil
}

// server is a language server that runs, and this end of its protocol.
type server struct {
	t     *testing.T
	in    io.Writer
	ended chan struct{} // closed with the end of the server

	mu          sync.Mutex // guards what follows
	last        int
	answers     map[int]chan json.RawMessage
	diagnostics map[string]chan []diagnostic // by address of the document
}

type diagnostic struct {
	Message string `json:"message"`
	Range   struct {
		Start struct {
			Line int `json:"line"`
		} `json:"start"`
	} `json:"range"`
}

// message is any one of the protocol.
type message struct {
	Version string          `json:"jsonrpc"`
	ID      any             `json:"id,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   json.RawMessage `json:"error,omitempty"`
}

// start runs a language server that knows no schema but those that documents name.
func start(t *testing.T) *server {
	t.Helper()
	script, err := install(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), "node", script, "--stdio") //nolint:gosec // G204: the script that was just installed
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, in: in, ended: make(chan struct{}), answers: map[int]chan json.RawMessage{}, diagnostics: map[string]chan []diagnostic{}}
	go func() {
		defer close(s.ended)
		if err := s.receive(bufio.NewReader(out)); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, fs.ErrClosed) {
			t.Logf("the language server: %v", err)
		}
	}()
	t.Cleanup(func() {
		_ = in.Close()
		_ = command.Process.Kill()
		<-s.ended
		_ = command.Wait()
	})
	s.ask("initialize", map[string]any{"processId": os.Getpid(), "rootUri": nil, "capabilities": map[string]any{
		"textDocument": map[string]any{"hover": map[string]any{"contentFormat": []string{"markdown"}}, "publishDiagnostics": map[string]any{}},
	}})
	s.tell("initialized", map[string]any{})
	s.tell("workspace/didChangeConfiguration", map[string]any{"settings": map[string]any{"yaml": map[string]any{
		"validate": true, "hover": true, "completion": true, "schemaStore": map[string]any{"enable": false},
	}}})
	return s
}

func (s *server) write(m message) {
	s.t.Helper()
	m.Version = "2.0"
	text, err := json.Marshal(m)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(s.in, "Content-Length: %d\r\n\r\n%s", len(text), text); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) tell(method string, params any) {
	s.t.Helper()
	s.write(message{Method: method, Params: params})
}

func (s *server) ask(method string, params any) json.RawMessage {
	s.t.Helper()
	answer := make(chan json.RawMessage, 1)
	s.mu.Lock()
	s.last++
	id := s.last
	s.answers[id] = answer
	s.write(message{ID: id, Method: method, Params: params})
	s.mu.Unlock()
	select {
	case result := <-answer:
		return result
	case <-s.ended:
		s.t.Fatalf("the language server ended before its answer to %s", method)
		return nil
	}
}

// receive hands answers and diagnostics to those that wait for them.
func (s *server) receive(from *bufio.Reader) error {
	for {
		text, err := readMessage(from)
		if err != nil {
			return err
		}
		var m struct {
			message

			Params struct {
				URI         string       `json:"uri"`
				Diagnostics []diagnostic `json:"diagnostics"`
			} `json:"params"`
		}
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		id, isNumber := m.ID.(float64)
		s.mu.Lock()
		switch {
		case m.Method == "textDocument/publishDiagnostics":
			s.found(m.Params.URI) <- m.Params.Diagnostics
		case m.Method == "" && isNumber:
			s.answers[int(id)] <- m.Result
		case m.ID != nil: // a question to the editor
			s.write(message{ID: m.ID, Result: json.RawMessage("null")})
		}
		s.mu.Unlock()
	}
}

func readMessage(from *bufio.Reader) ([]byte, error) {
	length := 0
	for {
		line, err := from.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if line = strings.TrimSpace(line); line == "" {
			break
		}
		if value, ok := strings.CutPrefix(line, "Content-Length: "); ok {
			if length, err = strconv.Atoi(value); err != nil {
				return nil, err
			}
		}
	}
	text := make([]byte, length)
	_, err := io.ReadFull(from, text)
	return text, err
}

// found is where the diagnostics of a document arrive. The lock is held.
func (s *server) found(uri string) chan []diagnostic {
	if s.diagnostics[uri] == nil {
		s.diagnostics[uri] = make(chan []diagnostic, 16)
	}
	return s.diagnostics[uri]
}

// open opens a document, as an editor does.
func (s *server) open(uri, text string) {
	s.t.Helper()
	s.tell("textDocument/didOpen", map[string]any{"textDocument": map[string]any{"uri": uri, "languageId": "yaml", "version": 1, "text": text}})
}

// diagnose are the diagnostics of a document that was opened.
func (s *server) diagnose(uri string) []diagnostic {
	s.t.Helper()
	s.mu.Lock()
	found := s.found(uri)
	s.mu.Unlock()
	select {
	case all := <-found:
		return all
	case <-s.ended:
		s.t.Fatalf("the language server ended before its diagnostics of %s", uri)
		return nil
	}
}

// at is a place in a document.
func at(uri string, line, character int) map[string]any {
	return map[string]any{"textDocument": map[string]any{"uri": uri}, "position": map[string]any{"line": line, "character": character}}
}

// complete is what is offered at a place: labels, with the texts that would be written.
func (s *server) complete(uri string, line, character int) map[string]string {
	s.t.Helper()
	var result struct {
		Items []struct {
			Label string `json:"label"`
			Text  string `json:"insertText"`
		} `json:"items"`
	}
	answer := s.ask("textDocument/completion", at(uri, line, character))
	if err := json.Unmarshal(answer, &result); err != nil {
		s.t.Fatalf("%v: %s", err, answer)
	}
	offered := map[string]string{}
	for _, item := range result.Items {
		offered[item.Label] = item.Text
	}
	return offered
}

// hover is what is shown over a place.
func (s *server) hover(uri string, line, character int) string {
	s.t.Helper()
	var result struct {
		Contents struct {
			Value string `json:"value"`
		} `json:"contents"`
	}
	answer := s.ask("textDocument/hover", at(uri, line, character))
	if err := json.Unmarshal(answer, &result); err != nil {
		s.t.Fatalf("%v: %s", err, answer)
	}
	return result.Contents.Value
}
