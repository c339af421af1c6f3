package cli_test

import (
	"math"
	"testing"
	"testing/fstest"

	"github.com/keymount/keymount/cli"
)

func TestCgroupLimit(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"a container": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "268435456\n",
		}, 256 << 20},
		"a service below a slice": {map[string]string{
			"proc/self/cgroup":                                       "0::/system.slice/keymount.service\n",
			"sys/fs/cgroup/system.slice/memory.max":                  "134217728\n",
			"sys/fs/cgroup/system.slice/keymount.service/memory.max": "268435456\n",
		}, 128 << 20},
		"version 1": {map[string]string{
			"proc/self/cgroup":                           "4:cpu,memory:/kubepods/pod1\n1:name=systemd:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456\n", // of the container, whose folder it does not see
		}, 256 << 20},
		"version 1 without a limit": {map[string]string{
			"proc/self/cgroup":                           "4:memory:/\n0::/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, math.MaxInt64},
		"no limit": {map[string]string{
			"proc/self/cgroup": "0::/../a\n", "sys/fs/cgroup/a/memory.max": "max\n",
		}, math.MaxInt64},
		"no cgroup": {nil, math.MaxInt64},
		"words":     {map[string]string{"proc/self/cgroup": "no\ncgroup:at\n"}, math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			files := fstest.MapFS{}
			for file, text := range test.files {
				files[file] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := cli.CgroupLimit(files); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}
