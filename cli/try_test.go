package cli_test

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/cli"
	"github.com/keymount/keymount/provider/providertest"
)

// TestTryGuide runs docs/try.md: each file that it names is written, and each command
// prints what the page says.
func TestTryGuide(t *testing.T) {
	page, err := os.ReadFile("../docs/try.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	blocks := regexp.MustCompile("(?ms)^(?:`([a-z.-]+)`:\n\n```yaml\n(.*?)|```console\n\\$ keymount (.*?)\n(.*?))^```$").FindAllStringSubmatch(string(page), -1)
	commands := 0
	for _, block := range blocks {
		file, content, line, want := block[1], block[2], block[3], block[4]
		if file != "" {
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil { //nolint:gosec // a name of the page
				t.Fatal(err)
			}
			continue
		}
		commands++
		var out bytes.Buffer
		cli.Run(t.Context(), strings.Fields(line), strings.NewReader(""), &out, &out)
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("keymount %s (-page +printed):\n%s", line, diff)
		}
	}
	if commands != strings.Count(string(page), "$ keymount ") || commands == 0 {
		t.Errorf("%d commands were run", commands)
	}
}

// examplesOf are the command lines in a command's help.
func examplesOf(t *testing.T, command string) (lines []string) {
	t.Helper()
	var help bytes.Buffer
	cli.Run(t.Context(), []string{command, "--help"}, strings.NewReader(""), &help, &help)
	_, text, _ := strings.Cut(help.String(), "Examples:\n")
	text, _, _ = strings.Cut(text, "\n\n")
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimPrefix(strings.TrimSpace(line), "keymount "))
	}
	if len(lines) == 0 {
		t.Fatalf("%s has no example:\n%s", command, help.String())
	}
	return lines
}

// runExample runs a command line, of which > names a file for standard output.
func runExample(t *testing.T, line string) {
	t.Helper()
	var out, errOut bytes.Buffer
	line, file, _ := strings.Cut(line, " > ")
	if code := cli.Run(t.Context(), strings.Fields(line), strings.NewReader(""), &out, &errOut); code != 0 {
		t.Errorf("keymount %s: %d\n%s%s", line, code, out.String(), errOut.String())
	}
	if file == "" {
		return
	}
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestExamplesOfRender runs the examples of its help, in their order, with a class that has
// no pod beside it.
func TestExamplesOfRender(t *testing.T) {
	t.Chdir(t.TempDir())
	issuer, err := providertest.NewIssuer("https://cluster.invalid", "test")
	if err != nil {
		t.Fatal(err)
	}
	key, err := issuer.PrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	const stores = `stores:
  - bundle: {file: secrets.age, identityFile: key.txt}
    access: [{namespaces: [shop], serviceAccounts: [api], paths: ["{namespace}/**"]}]
`
	for name, content := range map[string]string{ //nolint:gosec // an obviously fake password
		"issuer.pem": string(key), "keymount.yaml": stores, "values.yaml": "config:\n  " + strings.ReplaceAll(strings.TrimSpace(stores), "\n", "\n  ") + "\n",
		"secrets.yaml": "shop/db: {password: fake-1}\n",
		"class.yaml": `apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: shop-api, namespace: shop}
spec:
  provider: keymount
  parameters: {objects: "[{path: shop/db, key: password, file: password}]"}
`,
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("CLUSTER_KEY", "issuer.pem")
	for _, line := range []string{"bundle keygen key.txt > recipients.txt", "bundle encrypt --recipients-file recipients.txt --out secrets.age secrets.yaml"} {
		runExample(t, line)
	}
	for _, line := range examplesOf(t, "render") {
		runExample(t, line)
	}
}

// TestExamplesOfMount runs the examples of its help in the folder of a kept demo.
func TestExamplesOfMount(t *testing.T) {
	t.Chdir(keepDemo(t).folder)
	for _, line := range examplesOf(t, "mount") {
		runExample(t, line)
	}
}
