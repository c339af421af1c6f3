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

// newPod is the pod of that name and service account, which mounts all secrets of an
// account.
func (c *cluster) newPod(name, serviceAccount string, account, objects int) (pod, error) {
	who := auth.Pod{Namespace: "bench", Name: name, UID: "uid-of-" + name, ServiceAccount: serviceAccount}
	claims := c.issuer.ClaimsFor(who, audience)
	claims.Node = providertest.Reference{Name: node, UID: "uid-of-" + node}
	token, err := c.issuer.Sign(claims)
	if err != nil {
		return pod{}, err
	}
	var list strings.Builder
	for object := range objects {
		fmt.Fprintf(&list, "- {path: secret/%s, key: value, file: f%d}\n", secretName(account, object), object)
	}
	attributes, err := providertest.Volume{
		Pod: who, Class: "app", Tokens: map[string]string{audience: token},
		Parameters: map[string]string{"store": storeName, "role": role, "objects": list.String()},
	}.Attributes()
	if err != nil {
		return pod{}, err
	}
	return pod{account, attributes}, nil
}

// running are the pods of a node, of so many service accounts.
func (c *cluster) running(accounts int, o options) ([]pod, error) {
	pods := make([]pod, o.Pods)
	for i := range pods {
		account := i % accounts
		p, err := c.newPod(fmt.Sprintf("pod-%d", i), fmt.Sprintf("account-%d", account), account, o.Objects)
		if err != nil {
			return nil, err
		}
		pods[i] = p
	}
	return pods, nil
}

// passing are pods that come and go: as many service accounts for each as the running
// ones have.
func (c *cluster) passing(accounts int, o options) ([]pod, error) {
	pods := make([]pod, o.Churn)
	for i := range pods {
		account, name := i%accounts, fmt.Sprintf("account-%d", i%accounts)
		if accounts == o.Pods { // each its own
			name = fmt.Sprintf("passing-account-%d", i)
		}
		p, err := c.newPod(fmt.Sprintf("passing-%d", i), name, account, o.Objects)
		if err != nil {
			return nil, err
		}
		pods[i] = p
	}
	return pods, nil
}
