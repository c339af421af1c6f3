package provider_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// harmful has this program be the store of TestWorstInputs.
const harmful = "KEYMOUNT_HARMFUL_STORE"

// TestHarmfulStore is no test but that store, until its standard input ends.
func TestHarmfulStore(t *testing.T) {
	if os.Getenv(harmful) == "" {
		return
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(harm)} //nolint:gosec // G112: for its own test
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Close()
	}()
	_, _ = fmt.Printf("http://%s\n", listener.Addr())
	_ = server.Serve(listener) // until it is closed
}

// startHarm starts the store, and returns its address.
func startHarm(t *testing.T) string {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(context.WithoutCancel(t.Context()), program, "-test.run", "^TestHarmfulStore$") //nolint:gosec // G204: this very program
	command.Env = append(os.Environ(), harmful+"=1", "GORACE=atexit_sleep_ms=0")
	end, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	t.Cleanup(func() {
		_ = end.Close()
		_, _ = io.Copy(io.Discard, lines)
		_ = command.Wait()
	})
	address, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(address)
}

// units are the parts that secrets are made of.
func units() []string {
	const deep = 90
	return []string{
		`{}`, `[]`, `{"a":{}}`, `1`, `"x"`, `null`, `{"a":1,"b":2}`, `[[1]]`, `"\u00e9\n"`,
		strings.Repeat("[", deep) + strings.Repeat("]", deep), strings.Repeat(`{"a":`, deep) + "1" + strings.Repeat("}", deep),
		`"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"`, `"` + strings.Repeat("MIIB", 256) + `"`, `{"` + strings.Repeat("k", 300) + `":"v"}`, `1.10e5`,
	}
}

// wraps is how many ways there are to put units together, see [harm].
const wraps = 6

// harm answers like a Vault with a KV v2 engine whose secrets are named after what is in
// them: unit, count, wrap and whatever tells two apart.
func harm(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	if strings.HasPrefix(path, "auth/") {
		_, _ = io.WriteString(w, `{"request_id":"x","lease_id":"","lease_duration":0,"renewable":false,"auth":{"client_token":"hvs.obviously-fake","lease_duration":3600}}`)
		return
	}
	if path == "sys/health" {
		_, _ = io.WriteString(w, `{"initialized":true,"sealed":false,"standby":false}`)
		return
	}
	parts := strings.Split(path[strings.LastIndexByte(path, '/')+1:], "-")
	part := func(i int) int { n, _ := strconv.Atoi(parts[i]); return n }
	text, count := units()[part(0)], part(1)
	begin := func(text string) {
		_, _ = io.WriteString(w, `{"request_id":"x","lease_id":"","lease_duration":0,"renewable":false,"data":{"data":{`+text)
	}
	named := func(prefix string) func(b []byte, i int) []byte {
		return func(b []byte, i int) []byte {
			return append(append(strconv.AppendInt(append(b, prefix...), int64(i), 10), `":`...), text...)
		}
	}
	switch part(2) {
	case 0: // a list
		begin(`"v":[`)
		repeat(w, count, ",", text)
		_, _ = io.WriteString(w, `]},"metadata":{"version":1}}}`)
	case 1: // under names
		begin(`"v":"x"`)
		number(w, count, named(`,"k`))
		_, _ = io.WriteString(w, `},"metadata":{"version":1}}}`)
	case 2: // under names with dots
		begin(`"v":"x"`)
		number(w, count, named(`,"v.a.`))
		_, _ = io.WriteString(w, `},"metadata":{"version":1}}}`)
	case 3: // one text
		begin(`"v":"`)
		repeat(w, count, "y", strings.Repeat("x", len(text)))
		_, _ = io.WriteString(w, `"},"metadata":{"version":1}}}`)
	case 4: // beside the secret
		begin(`"v":"x"},"metadata":{"version":1,"custom_metadata":[`)
		repeat(w, count, ",", text)
		_, _ = io.WriteString(w, `]}}}`)
	case 5: // a list of short lists
		begin(`"v":[[0],[`)
		repeat(w, count, "],[", text)
		_, _ = io.WriteString(w, `]]},"metadata":{"version":1}}}`)
	}
}

// This server writes in pieces, and so takes no memory; and little time, since it would be
// on another machine.
const piece = 16 << 10

// repeat writes a text so many times, with a separator between two.
func repeat(w io.Writer, count int, separator, text string) {
	_, _ = io.WriteString(w, text)
	one := separator + text
	each := max(1, piece/len(one))
	some := []byte(strings.Repeat(one, min(each, count)))
	for left := count - 1; left > 0; left -= each {
		if _, err := w.Write(some[:min(left, each)*len(one)]); err != nil {
			return
		}
	}
}

// number writes so many texts with a number in each.
func number(w io.Writer, count int, add func(b []byte, i int) []byte) {
	var b []byte
	for i := range count {
		if b = add(b, i); len(b) > piece || i == count-1 {
			if _, err := w.Write(b); err != nil {
				return
			}
			b = b[:0]
		}
	}
}
