package main

import (
	"fmt"
	"strings"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/provider/providertest"
)

const audience = "vault"

// cluster is whose tokens the pods have.
type cluster struct{ issuer *providertest.Issuer }

func newCluster() (*cluster, error) {
	issuer, err := providertest.NewIssuer("https://cluster.example", "key-1")
	if err != nil {
		return nil, err
	}
	return &cluster{issuer}, nil
}

// pod is one of the node, with one volume.
type pod struct {
	account    int    // of whose secrets it mounts
	attributes string // of the driver's call
}

// dialect is the syntax of the classes that a program gets.
type dialect string

const (
	dialectKeymount dialect = "keymount"
	dialectVault    dialect = "vault"
)

func (d dialect) check() error {
	if d == dialectKeymount || d == dialectVault {
		return nil
	}
	return fmt.Errorf("-beside-dialect is %q; it is %s or %s", string(d), dialectVault, dialectKeymount)
}

// socket has the name by which a keymount knows the dialect.
func (d dialect) socket() string { return string(d) + ".sock" }

// class has the parameters of a class with all secrets of an account.
func (d dialect) class(account, objects int) map[string]string {
	object, class := "- {path: secret/%s, key: value, file: f%d}\n", map[string]string{"store": storeName, "role": role}
	if d == dialectVault {
		object = "- {secretPath: secret/data/%s, secretKey: value, objectName: f%d}\n"
		class = map[string]string{"roleName": role, "vaultAuthMountPath": "jwt", "audience": audience}
	}
	var list strings.Builder
	for i := range objects {
		fmt.Fprintf(&list, object, secretName(account, i), i)
	}
	class["objects"] = list.String()
	return class
}

// newPod is the pod of that name and service account, which mounts all secrets of an
// account.
func (c *cluster) newPod(d dialect, name, serviceAccount string, account, objects int) (pod, error) {
	who := auth.Pod{Namespace: "bench", Name: name, UID: "uid-of-" + name, ServiceAccount: serviceAccount}
	claims := c.issuer.ClaimsFor(who, audience)
	claims.Node = providertest.Reference{Name: node, UID: "uid-of-" + node}
	token, err := c.issuer.Sign(claims)
	if err != nil {
		return pod{}, err
	}
	attributes, err := providertest.Volume{
		Pod: who, Class: "app", Tokens: map[string]string{audience: token}, Parameters: d.class(account, objects),
	}.Attributes()
	if err != nil {
		return pod{}, err
	}
	return pod{account, attributes}, nil
}

// running are the pods of a node, of so many service accounts.
func (c *cluster) running(d dialect, accounts int, o options) ([]pod, error) {
	pods := make([]pod, o.Pods)
	for i := range pods {
		account := i % accounts
		p, err := c.newPod(d, fmt.Sprintf("pod-%d", i), fmt.Sprintf("account-%d", account), account, o.Objects)
		if err != nil {
			return nil, err
		}
		pods[i] = p
	}
	return pods, nil
}

// passing are pods that come and go: as many service accounts for each as the running
// ones have.
func (c *cluster) passing(d dialect, accounts int, o options) ([]pod, error) {
	pods := make([]pod, o.Churn)
	for i := range pods {
		account, name := i%accounts, fmt.Sprintf("account-%d", i%accounts)
		if accounts == o.Pods { // each its own
			name = fmt.Sprintf("passing-account-%d", i)
		}
		p, err := c.newPod(d, fmt.Sprintf("passing-%d", i), name, account, o.Objects)
		if err != nil {
			return nil, err
		}
		pods[i] = p
	}
	return pods, nil
}
