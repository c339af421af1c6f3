// Command kubectl is the real one, of the module of its library, for tests of the commands of
// keymount that run it.
package main

import (
	"os"

	"k8s.io/kubectl/pkg/cmd"
)

func main() {
	if err := cmd.NewDefaultKubectlCommand().Execute(); err != nil {
		os.Exit(1) // it has said why
	}
}
