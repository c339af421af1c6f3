package pods_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keymount/keymount/e2e/vaulttest"
)

// longLease is the life of the credentials in testWatch: longer than the suite takes.
const longLease = time.Hour

// With watchVolumes the user that Vault made for a pod goes within a minute of the pod,
// and not when its lease ends; those of other pods stay. The pods and Vault's policy are
// those of the example. Nothing but this asks the API server more than before.
func (s *suite) testWatch(t *testing.T) {
	if s.cluster == nil {
		t.Skip("needs a database and an audit log that it may look at; run it without " + envKubeconfig)
	}
	const name = "example-database-credential"
	volumes := "secrets-store.csi.x-k8s.io/secretproviderclasspodstatuses"
	list, watch := request{release, "list " + volumes, ""}, request{release, "watch " + volumes, ""}
	if counts := s.audit(t); counts[list]+counts[watch] > 0 {
		t.Errorf("without watchVolumes it asked for volumes: %v", counts)
	}
	s.runHelm(t, "upgrade", release, "deploy/chart", "--namespace", releaseNamespace, "--reuse-values", "--wait", "--timeout", "3m",
		"--set", "watchVolumes.enabled=true", "--set", "updateStrategy.rollingUpdate.maxUnavailable=100%")
	s.runSetup(t, "database-credential/setup.sh")
	write(t, s.vault, "database/roles/"+name, map[string]string{"default_ttl": longLease.String(), "max_ttl": (2 * longLease).String()})

	database := s.postgres.Open(t, vaulttest.Superuser, s.postgres.Password)
	c := &scene{kube: s.kube, t: t, namespace: name}
	goes, stays := s.credentialed(t, c, "goes"), s.credentialed(t, c, "stays")
	for _, user := range []string{goes, stays} {
		if left := time.Until(validUntil(t, database, user)); left < longLease/2 {
			t.Fatalf("the user %s lives for %s: this test cannot tell whether it is given back", user, left)
		}
	}
	began := time.Now()
	c.remove(t, name, "goes")
	c.within(t, time.Minute, "the user of the pod is gone", func() error {
		if until := validUntil(t, database, goes); !until.IsZero() {
			return fmt.Errorf("it is there, valid until %s", until)
		}
		return nil
	})
	s.report("a pod's user in PostgreSQL, of a lease of %s, with watchVolumes: gone %.1fs after the deletion of the pod", longLease, time.Since(began).Seconds())
	if validUntil(t, database, stays).IsZero() {
		t.Error("the user of another pod is gone, too")
	}

	counts := s.audit(t)
	for _, want := range []request{list, watch} {
		if counts[want] == 0 {
			t.Errorf("never seen is %s", want)
		}
		s.report("with watchVolumes, asked of the API server by %s, %d times", want, counts[want])
	}
}

// credentialed makes a pod like the example's, and returns whom it is in the database.
func (s *suite) credentialed(t *testing.T, c *scene, name string) string {
	t.Helper()
	for _, file := range []string{"1-namespace.yaml", "2-class.yaml", "3-pod.yaml"} {
		manifest, err := os.ReadFile(filepath.Join("../../examples/database-credential", file))
		if err != nil {
			t.Fatal(err)
		}
		s.apply(t, strings.Replace(string(manifest), "kind: Pod\nmetadata:\n  name: app\n", "kind: Pod\nmetadata:\n  name: "+name+"\n", 1))
	}
	c.ready(t, c.namespace, name, readyLimit)
	user, err := c.exec(t, c.namespace, name, "cat", "/secrets/username")
	if err != nil {
		t.Fatal(err)
	}
	return user
}

// validUntil is when a user of the database ends; zero for one that is not there.
func validUntil(t *testing.T, database *sql.DB, user string) (until time.Time) {
	t.Helper()
	err := database.QueryRowContext(t.Context(), `SELECT rolvaliduntil FROM pg_roles WHERE rolname = $1`, user).Scan(&until)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		t.Fatal(err)
	}
	return until
}
