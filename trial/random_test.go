package trial_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// randomClass writes a class of keymount or of vault-csi-provider, with a pod that mounts it.
// Most of its fields are good, so that a part of the classes is.
func randomClass(r *rand.Rand) string {
	provider, parameters := "keymount", ""
	object := nativeObject
	switch r.IntN(3) {
	case 0:
		provider, object = "vault", vaultObject
		parameters = "    roleName: " + some(r, "shop", "shop", "shop", "other") + "\n    vaultAuthMountPath: " + some(r, "kubernetes", "kubernetes", "kubernetes", "jwt") + "\n"
		parameters += seldom(r, "    unknownParameter: a\n")
	case 1:
		parameters = "    store: prod\n    role: " + some(r, "shop", "shop", "shop", "other") + "\n"
	default:
		parameters = seldom(r, "    role: shop\n") + seldom(r, "    stroe: prod\n")
	}
	inVault := strings.Contains(parameters, "prod") && provider == "keymount"
	objects := ""
	for i := range 1 + r.IntN(3) {
		objects += "      - {" + object(r, i, inVault) + "}\n"
	}
	return fmt.Sprintf(`apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: random, namespace: shop}
spec:
  provider: %s
  parameters:
%s    objects: |
%s---
apiVersion: v1
kind: Pod
metadata: {name: api-0, namespace: shop}
spec:
  serviceAccountName: %s
  containers: [{name: app, image: app, volumeMounts: [{name: secrets, mountPath: /secrets, readOnly: true}]}]
  volumes: [{name: secrets, csi: {driver: secrets-store.csi.k8s.io, readOnly: true, volumeAttributes: {secretProviderClass: random}}}]
`, provider, parameters, objects, some(r, "api", "api", "api", "api", "api", "web"))
}

func some(r *rand.Rand, texts ...string) string { return texts[r.IntN(len(texts))] }

// seldom is the text once in 15 times, and else empty.
func seldom(r *rand.Rand, text string) string {
	if r.IntN(15) == 0 {
		return text
	}
	return ""
}

func nativeObject(r *rand.Rand, i int, inVault bool) string {
	path := some(r, "shop/db", "shop/db", "shop/db", "shop/one", "shop/empty", "shop/absent")
	if inVault {
		path = some(r, "secret/shop/db", "secret/data/shop/db", "secret/shop/one", "kv/shop/db", "secret/shop/absent", "pki/issue/shop")
	}
	if r.IntN(12) == 0 {
		path = some(r, "blog/db", "secret/blog/db", "/shop/db", "shop//db", "shop/../db", "pki/cert/ca_chain", "sys/mounts", "a b")
	}
	file := fmt.Sprintf("file-%d", i)
	form := some(r,
		"key: password", "key: user", "key: port", "key: deep.er", "key: dotted.key", "key: list", "key: list.1", "key: on",
		"key: b64, encoding: base64", "format: json", "format: yaml", "format: dotenv", "format: properties",
		`template: "{{ .user }}:{{ .password }}"`, `template: "{{ range .list }}{{ . }},{{ end }}"`, "FOLDER",
	)
	if r.IntN(8) == 0 {
		form = some(r, "key: absent", "key: none", "key: password, encoding: hex", "key: password, encoding: base46", "format: jsn", "format: pem",
			`template: "{{ .absent }}"`, `template: "{{ .a"`, "key: password, format: json", `key: ""`, "encoding: hex", "format: jks", "key: password, fiel: a")
	}
	if form == "FOLDER" {
		form, file = "optional: false", file+"/"
	}
	fields := []string{"path: " + path, form, "file: " + file}
	if r.IntN(4) == 0 {
		fields = append(fields, some(r, `mode: "0400"`, `mode: "0440"`, "optional: true", "lease: shared", "version: '2'"))
	}
	if strings.Contains(path, "pki/issue") && r.IntN(3) > 0 {
		fields = append(fields, "args: {common_name: a.invalid}")
	}
	if r.IntN(15) == 0 {
		fields = append(fields, some(r, "mode: 400", `mode: "0999"`, "optional: maybe", "lease: mine", "store: nowhere", "role: other", "args: {a: b}", "version: x", "keyFormat: pkcs8"))
	}
	if r.IntN(20) == 0 {
		fields[2] = some(r, "file: ../up", "file: /abs", "file: file-0", "file: a/../b", "file: file-0/deeper")
	}
	return strings.Join(fields, ", ")
}

func vaultObject(r *rand.Rand, i int, _ bool) string {
	path := some(r, "secret/data/shop/db", "secret/data/shop/db", "/v1/secret/data/shop/db", "kv/shop/db", "secret/data/shop/one", "secret/data/shop/db?version=3", "secret/data/shop/absent")
	if r.IntN(12) == 0 {
		path = some(r, "secret/data/blog/db", "secret/metadata/shop/db", "secret/data/shop/db?version=x", "secret/data/shop/db?list=true", "a//b", "")
	}
	fields := []string{fmt.Sprintf("objectName: file-%d", i), fmt.Sprintf("secretPath: %q", path)}
	if r.IntN(5) > 0 {
		fields = append(fields, "secretKey: "+some(r, "password", "user", "port", "list", "deep", "a", "absent", "dotted.key"))
	}
	if r.IntN(6) == 0 {
		fields = append(fields, some(r, "filePermission: 0400", `filePermission: "0440"`, "encoding: base64", "method: GET", "unknown: a", "filePermission: 400", "method: DELETE", "encoding: hx", "secretArgs: {a: b}"))
	}
	if r.IntN(20) == 0 {
		fields[0] = some(r, "objectName: file-0", "objectName: /abs", "objectName: ../up", `objectName: ""`)
	}
	return strings.Join(fields, ", ")
}
