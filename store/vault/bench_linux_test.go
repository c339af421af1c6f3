package vault_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/queue"
	"github.com/keymount/keymount/store/vault"
)

// BenchmarkRead is one read of a secret at a time, of the length that its name says.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := vault.New(benchConn(b, size), "", map[string]vault.Engine{"secret": vault.KV2})
			wanted := benchRef(b, 0)
			measure(b, func() error {
				value, err := s.Read(b.Context(), caller(), wanted)
				if err == nil && value.Data.Held() < size {
					err = errors.New("the value is shorter than the secret")
				}
				return err
			})
		})
	}
}

// BenchmarkColdAccount is what the first mount of a service account asks: a login and ten
// secrets of a KiB, below all that keymount serve puts before a Vault.
func BenchmarkColdAccount(b *testing.B) {
	const secrets = 10
	conn := benchConn(b, 1<<10)
	s := vault.New(conn, "", map[string]vault.Engine{"secret": vault.KV2})
	sessions := login.NewSessions(vault.Method{Conn: conn, Mount: "kubernetes", Now: time.Now}, false, time.Now)
	opened := login.Open(login.Options{Store: s, Resolver: s, Leaser: s, Sessions: sessions, Now: time.Now})
	kept := keep.New(queue.Limit(opened, 64), keep.Options{
		Refresh: time.Hour, Pool: keep.NewPool(64<<20, time.Now, nil), Now: time.Now,
		Vouch: func(r login.Request) { sessions.Vouch(r.Identity, r.Role) },
	})
	wanted := make([]store.Ref, secrets)
	for i := range wanted {
		wanted[i] = benchRef(b, i)
	}
	accounts := 0
	measure(b, func() error {
		accounts++
		request := login.Request{
			Identity: auth.Identity{Namespace: "shop", ServiceAccount: fmt.Sprintf("account-%d", accounts), Expires: time.Now().Add(time.Hour)},
			Role:     "shop", Proof: secret.New([]byte("a.jwt.token")), Waiting: true,
		}
		recalled := kept.Recall(request)
		for _, one := range wanted {
			resolved, known := recalled.Path(one)
			if !known {
				return errors.New("the mount is named, and not known")
			}
			if _, err := kept.Read(b.Context(), request, one, resolved); err != nil {
				return err
			}
		}
		return nil
	})
}

// measure reports the processor time of f, too, with that of the server in this process.
func measure(b *testing.B, f func() error) {
	b.Helper()
	if err := f(); err != nil { // opens the connection
		b.Fatal(err)
	}
	b.ReportAllocs()
	before := processorTime(b)
	for b.Loop() {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((processorTime(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func benchRef(b *testing.B, i int) store.Ref {
	b.Helper()
	path, err := store.ParsePath(fmt.Sprintf("secret/shop/db-%d", i))
	if err != nil {
		b.Fatal(err)
	}
	return store.Ref{Path: path}
}

// benchConn leads to a server that answers logins, and reads with a secret of this length.
func benchConn(b *testing.B, size int) *vault.Conn {
	b.Helper()
	listener, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &frugal{login: answerOf(benchLogin), read: answerOf(benchSecret(size))}
	var serving sync.WaitGroup
	serving.Go(func() { server.serve(&serving, listener) })
	conn, err := vault.NewConn(vault.Options{Addresses: []string{"http://" + listener.Addr().String()}}, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		conn.HangUp()
		_ = listener.Close()
		serving.Wait()
	})
	return conn
}

// The answers are as Vault writes them.
const benchLogin = `{"request_id":"6ad0a6a7-9b5b-44f6-9c1f-0f8d7d3b9a01","lease_id":"","renewable":false,"lease_duration":0,"data":null,"wrap_info":null,"warnings":null,` +
	`"auth":{"client_token":"` + goodToken + `","accessor":"obviously-fake","policies":["default","shop"],"token_policies":["default","shop"],` +
	`"metadata":{"role":"shop","service_account_name":"api","service_account_namespace":"shop","service_account_secret_name":"","service_account_uid":"fake"},` +
	`"lease_duration":3600,"renewable":true,"entity_id":"fake","token_type":"service","orphan":true,"mfa_requirement":null,"num_uses":0},"mount_type":""}` + "\n"

func benchSecret(size int) string {
	return `{"request_id":"6ad0a6a7-9b5b-44f6-9c1f-0f8d7d3b9a02","lease_id":"","renewable":false,"lease_duration":0,"data":{"data":{"password":"` +
		strings.Repeat("correct horse\\n", size/14) + `","username":"shop"},"metadata":{"created_time":"2026-01-02T03:04:05.678901234Z","custom_metadata":null,` +
		`"deletion_time":"","destroyed":false,"version":3}},"wrap_info":null,"warnings":null,"auth":null,"mount_type":"kv"}` + "\n"
}

// answerOf is an answer as net/http writes it: in one piece when it is short, and else in
// chunks, without a length in front of it.
func answerOf(body string) []byte {
	const short = 2 << 10
	head := "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Type: application/json\r\nStrict-Transport-Security: max-age=31536000; includeSubDomains\r\n" +
		"Date: Fri, 02 Jan 2026 03:04:05 GMT\r\n"
	if len(body) <= short {
		return fmt.Appendf(nil, "%sContent-Length: %d\r\n\r\n%s", head, len(body), body)
	}
	return fmt.Appendf(nil, "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head, len(body), body)
}

// frugal is a server that takes next to nothing of the time and the memory that are measured.
type frugal struct{ login, read []byte }

func (f *frugal) serve(serving *sync.WaitGroup, listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil { // it is closed
			return
		}
		serving.Go(func() { defer func() { _ = conn.Close() }(); f.converse(conn) })
	}
}

func (f *frugal) converse(conn net.Conn) {
	from := bufio.NewReader(conn)
	for {
		answer, length := f.read, 0
		for line := []byte(nil); string(line) != "\r\n"; {
			var err error
			if line, err = from.ReadSlice('\n'); err != nil { // the client has gone
				return
			}
			if bytes.HasPrefix(line, []byte("POST ")) {
				answer = f.login
			}
			if number, is := bytes.CutPrefix(line, []byte("Content-Length: ")); is {
				length, _ = strconv.Atoi(string(bytes.TrimSpace(number)))
			}
		}
		if _, err := from.Discard(length); err != nil {
			return
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}
