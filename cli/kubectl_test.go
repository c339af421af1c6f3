package cli_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/cli"
	"github.com/keymount/keymount/provider/providertest"
)

// kubectl plays the program of that name, of a cluster with the issuer in $CLUSTER_KEY. The
// service account called locked may not be used, and the context called blind sees nothing.
func kubectl() {
	if err := playKubectl(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func playKubectl(args []string) error {
	if os.Getenv("CLUSTER_KEY") == "" {
		return fmt.Errorf("error: no cluster")
	}
	data, err := os.ReadFile(os.Getenv("CLUSTER_KEY")) //nolint:gosec // of the script
	if err != nil {
		return err
	}
	issuer, err := providertest.ParseIssuer(data)
	if err != nil {
		return err
	}
	if strings.Contains(strings.Join(args, " "), "--context blind") {
		return fmt.Errorf(`Error from server (Forbidden): forbidden: User "ann" cannot get path "/openid/v1/jwks"`)
	}
	switch strings.Join(args[:3], " ") {
	case "get pods --namespace":
		return getPods(args)
	case "exec keymount-a --namespace":
		return inPod(args[slices.Index(args, "--")+1:])
	case "config get-contexts --output":
		fmt.Println("blind\nstaging")
		return nil
	case "get namespaces --output":
		fmt.Println("namespace/keymount\nnamespace/shop")
		return nil
	case "get --raw /.well-known/openid-configuration":
		fmt.Printf(`{"issuer": %q}`, issuer.Name)
		return nil
	case "get --raw /openid/v1/jwks":
		keys, err := issuer.KeySet()
		fmt.Printf("%s", keys)
		return err
	}
	return createToken(issuer, args)
}

// getPods is kubectl get pods for keymount's own in the namespace keymount: of two nodes, one of
// which is not ready to run it.
func getPods(args []string) error {
	if args[3] != "keymount" {
		fmt.Print(`{"items": []}`)
		return nil
	}
	fmt.Print(`{"items": [{"metadata": {"name": "keymount-b"}, "spec": {"nodeName": "worker-2"}, "status": {"phase": "Pending"}},
		{"metadata": {"name": "keymount-a"}, "spec": {"nodeName": "worker-1"}, "status": {"phase": "Running"}}]}`)
	return nil
}

// inPod runs keymount as kubectl exec does, with the keymount.yaml of the node.
func inPod(command []string) error {
	run := exec.Command("keymount", append(command[1:], "--config", os.Getenv("NODE_CONFIG"))...) //nolint:gosec,noctx // of the script
	run.Stdout, run.Stderr = os.Stdout, os.Stderr
	return run.Run()
}

// createToken is kubectl create token.
func createToken(issuer *providertest.Issuer, args []string) error {
	if len(args) < 3 || args[0] != "create" || args[1] != "token" {
		return fmt.Errorf("unexpected arguments %q", args)
	}
	pod := auth.Pod{ServiceAccount: args[2], UID: "0b6f1d1c-7a5e-4f0e-9a4e-5d2c7f1e8a01"}
	flags := flag.NewFlagSet("create token", flag.ContinueOnError)
	flags.StringVar(&pod.Namespace, "namespace", "", "")
	flags.StringVar(&pod.Name, "bound-object-name", "", "")
	audience, kind := flags.String("audience", "", ""), flags.String("bound-object-kind", "", "")
	for _, name := range []string{"duration", "context", "kubeconfig"} {
		flags.String(name, "", "")
	}
	if err := flags.Parse(args[3:]); err != nil {
		return err
	}
	if pod.ServiceAccount == "locked" {
		return fmt.Errorf(`error: failed to create token: serviceaccounts %q is forbidden: User "ann" cannot create resource "serviceaccounts/token" in API group "" in the namespace %q`,
			pod.ServiceAccount, pod.Namespace)
	}
	claims := issuer.ClaimsFor(pod, *audience)
	if *kind == "Pod" {
		claims.Node = providertest.Reference{Name: "node-1", UID: "uid-of-node-1"}
	} else {
		claims.Pod = providertest.Reference{}
	}
	token, err := issuer.Sign(claims)
	fmt.Println(token)
	return err
}

// Without kubectl nothing can be asked, and the message says so.
func TestRenderLiveWithoutKubectl(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("PATH", "")
	for name, text := range map[string]string{
		"class.yaml": `{apiVersion: secrets-store.csi.x-k8s.io/v1, kind: SecretProviderClass, metadata: {name: a}, spec: {provider: keymount,
  parameters: {objects: "[{path: a, key: b, file: c}]"}}}`,
		"keymount.yaml": "stores: [{bundle: {file: a.age, identityFile: a.txt}}]",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out, errOut bytes.Buffer
	code := cli.Run(t.Context(), []string{"render", "class.yaml", "--as", "shop/api", "--config", "keymount.yaml", "--live"}, strings.NewReader(""), &out, &errOut)
	if want := "keymount: the API server is asked with kubectl, and there is none in $PATH; install it\n"; code != 1 || errOut.String() != want {
		t.Errorf("exit code %d: %s%s", code, out.String(), errOut.String())
	}
}
