package vaulttest

import (
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx" of database/sql
)

// Superuser is the user that owns the database.
const Superuser = "postgres"

// Postgres is a running PostgreSQL with an empty database.
type Postgres struct {
	Address  string // host and port, on 127.0.0.1
	Password string // of [Superuser]
	Socket   string // folder of its unix socket

	process *process
}

// StartPostgres runs Debian's PostgreSQL until the test ends. Every user needs a
// password, on the unix socket too. It refuses to run as root, so a test that
// does hands it to the user postgres.
func StartPostgres(tb testing.TB) *Postgres {
	tb.Helper()
	programs := postgresPrograms(tb)
	owner := postgresOwner(tb)
	postgres := &Postgres{Address: freeAddress(tb), Password: "vaulttest-superuser", Socket: privateFolder(tb, owner)}
	data, passwordFile := filepath.Join(postgres.Socket, "data"), filepath.Join(postgres.Socket, "password")
	write(tb, passwordFile, []byte(postgres.Password))
	give(tb, passwordFile, owner)

	initdb := exec.CommandContext(tb.Context(), filepath.Join(programs, "initdb"), //nolint:gosec // G204: PostgreSQL's own
		"-D", data, "-U", Superuser, "--pwfile="+passwordFile, "--auth=scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync")
	initdb.Dir, initdb.Env, initdb.SysProcAttr = postgres.Socket, []string{}, &syscall.SysProcAttr{Credential: owner}
	if out, err := initdb.CombinedOutput(); err != nil {
		tb.Fatalf("make a database: %v\n%s", err, out)
	}

	host, port, _ := net.SplitHostPort(postgres.Address)
	command, end := owned(tb, filepath.Join(programs, "postgres"), "-D", data, "-k", postgres.Socket, "-h", host, "-p", port, "-F")
	command.Dir = postgres.Socket
	// SIGINT ends it at once, with its clients. The kernel sends that too when this
	// process is killed.
	command.SysProcAttr = &syscall.SysProcAttr{Credential: owner, Pdeathsig: syscall.SIGINT}
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGINT) }
	postgres.process = run(tb, command, end)
	database := postgres.Open(tb, Superuser, postgres.Password)
	eventually(tb, "wait for PostgreSQL", database.PingContext)
	return postgres
}

// URL is a connection string for a user of the database.
func (p *Postgres) URL(username, password string) string {
	return fmt.Sprintf("postgresql://%s:%s@%s/postgres?sslmode=disable", username, password, p.Address)
}

// Open is the database as a user sees it, until the test ends. A wrong password
// shows at the first use.
func (p *Postgres) Open(tb testing.TB, username, password string) *sql.DB {
	tb.Helper()
	database, err := sql.Open("pgx", p.URL(username, password))
	if err != nil {
		tb.Fatalf("open the database: %v", err)
	}
	tb.Cleanup(func() { _ = database.Close() }) // its connections may have been ended by Stop
	return database
}

// CreateUser makes a user that may log in.
func (p *Postgres) CreateUser(tb testing.TB, username, password string) {
	tb.Helper()
	statement := fmt.Sprintf(`CREATE ROLE %q WITH LOGIN PASSWORD '%s'`, username, password)
	if _, err := p.Open(tb, Superuser, p.Password).ExecContext(tb.Context(), statement); err != nil {
		tb.Fatalf("make the user %s: %v", username, err)
	}
}

// Stop ends PostgreSQL before its test ends. A second call does nothing.
func (p *Postgres) Stop(tb testing.TB) {
	tb.Helper()
	p.process.stop(tb)
}

// postgresPrograms is the folder of the newest version's programs.
func postgresPrograms(tb testing.TB) string {
	tb.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is valid
	if len(found) == 0 {
		tb.Fatal("no PostgreSQL in /usr/lib/postgresql: install Debian's package for it (apt-get install postgresql)")
	}
	version := func(program string) int {
		number, _ := strconv.Atoi(strings.Split(program, "/")[4])
		return number
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }))
}

// postgresOwner is who runs PostgreSQL when the test runs as root, else nil.
func postgresOwner(tb testing.TB) *syscall.Credential {
	tb.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		account, err = user.Lookup("nobody")
	}
	if err != nil {
		tb.Fatalf("find a user for PostgreSQL, which refuses to run as root: %v", err)
	}
	uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		tb.Fatalf("find a user for PostgreSQL: %v", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// privateFolder is owner's alone. It does not lie in t.TempDir, whose parent only
// the user of the test can enter, and its short name fits a unix socket.
func privateFolder(tb testing.TB, owner *syscall.Credential) string {
	tb.Helper()
	folder, err := os.MkdirTemp("", "postgres-") //nolint:usetesting // see above
	if err != nil {
		tb.Fatalf("make a folder for PostgreSQL: %v", err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(folder); err != nil {
			tb.Errorf("remove PostgreSQL's folder: %v", err)
		}
	})
	give(tb, folder, owner)
	return folder
}

func give(tb testing.TB, name string, owner *syscall.Credential) {
	tb.Helper()
	if owner == nil {
		return
	}
	if err := os.Chown(name, int(owner.Uid), int(owner.Gid)); err != nil {
		tb.Fatalf("hand %s to PostgreSQL's user: %v", name, err)
	}
}

// freeAddress is one that nothing listens on now: PostgreSQL cannot choose its own.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("find a free port: %v", err)
	}
	if err := listener.Close(); err != nil {
		tb.Fatalf("find a free port: %v", err)
	}
	return listener.Addr().String()
}
