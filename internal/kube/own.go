package kube

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"

	"github.com/keymount/keymount/auth"
)

// ownToken is where Kubernetes puts the token of the pod that a process runs in.
const ownToken = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // a file's name

// OwnPod is the pod that this process runs in, by the token that it has; the zero Pod
// where there is none, or one that is bound to no pod.
func OwnPod() auth.Pod {
	token, err := os.ReadFile(ownToken)
	if err != nil {
		return auth.Pod{}
	}
	return PodOf(string(token))
}

// PodOf is the pod that a token is bound to, without a proof: it is only for one's own.
func PodOf(token string) auth.Pod {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return auth.Pod{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return auth.Pod{}
	}
	var claims struct {
		Kubernetes struct {
			Namespace      string                     `json:"namespace"`
			Pod            struct{ Name, UID string } `json:"pod"`
			ServiceAccount struct{ Name string }      `json:"serviceaccount"`
		} `json:"kubernetes.io"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return auth.Pod{}
	}
	k := claims.Kubernetes
	return auth.Pod{Namespace: k.Namespace, Name: k.Pod.Name, UID: k.Pod.UID, ServiceAccount: k.ServiceAccount.Name}
}
