package kube_test

import (
	"encoding/base64"
	"testing"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/kube"
)

func TestPodOfAToken(t *testing.T) {
	token := func(payload string) string {
		return "h." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".s"
	}
	bound := token(`{"sub":"system:serviceaccount:keymount:keymount","kubernetes.io":{"namespace":"keymount","node":{"name":"n"},` +
		`"pod":{"name":"keymount-x","uid":"u-1"},"serviceaccount":{"name":"keymount","uid":"u-2"}}}`)
	for text, want := range map[string]auth.Pod{
		bound: {Namespace: "keymount", Name: "keymount-x", UID: "u-1", ServiceAccount: "keymount"},
		token(`{"sub":"system:serviceaccount:keymount:keymount"}`): {},
		token(`{`): {}, "h.!.s": {}, "none": {}, "": {},
	} {
		if got := kube.PodOf(text); got != want {
			t.Errorf("%s: got %+v, want %+v", text, got, want)
		}
	}
}
