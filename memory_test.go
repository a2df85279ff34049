package main

import (
	"io/fs"
	"math"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

// TestMemoryLimit has what systems show of control groups: both versions, containers, limits
// further up.
func TestMemoryLimit(t *testing.T) {
	const none = math.MaxInt64
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"no control groups", nil, none},
		{"version 2, no limit", map[string]string{"proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/memory.max": "max\n"}, none},
		{"version 2, a unit", map[string]string{"proc/self/cgroup": "0::/system.slice/tp0.service\n",
			"sys/fs/cgroup/system.slice/tp0.service/memory.max": "25165824\n"}, 24 << 20},
		{"version 2, the slice around the unit", map[string]string{"proc/self/cgroup": "0::/system.slice/tp0.service\n",
			"sys/fs/cgroup/system.slice/memory.max":             "25165824\n",
			"sys/fs/cgroup/system.slice/tp0.service/memory.max": "67108864\n"}, 24 << 20},
		{"version 2, in a container", map[string]string{"proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "25165824\n"}, 24 << 20},
		{"version 1, in a container with the host's path", map[string]string{
			"proc/self/cgroup":                             "5:devices:/docker/x\n4:memory:/docker/x\n0::/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":   "25165824\n",
			"sys/fs/cgroup/devices/memory.limit_in_bytes":  "1\n",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1\n"}, 24 << 20},
		{"version 1, no limit", map[string]string{"proc/self/cgroup": "4:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 9223372036854771712},
		{"no sense", map[string]string{"proc/self/cgroup": "\n0\n0:::\n0::../..\n",
			"sys/fs/cgroup/memory.max": "-1\n"}, none},
	} {
		root := fstest.MapFS{}
		for name, text := range tt.files {
			root[name] = &fstest.MapFile{Data: []byte(text), Mode: fs.ModePerm}
		}
		if got := memoryLimit(root); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

// TestHeedMemoryLimit: the collector is told three quarters of the limit, unless GOMEMLIMIT says
// something else.
func TestHeedMemoryLimit(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	root := fstest.MapFS{"proc/self/cgroup": {Data: []byte("0::/\n")},
		"sys/fs/cgroup/memory.max": {Data: []byte("4294967296\n")}}
	t.Setenv("GOMEMLIMIT", "5GiB")
	heedMemoryLimit(root)
	if got := debug.SetMemoryLimit(-1); got != before {
		t.Errorf("with GOMEMLIMIT: got %d, want %d", got, before)
	}
	t.Setenv("GOMEMLIMIT", "")
	heedMemoryLimit(fstest.MapFS{})
	if got := debug.SetMemoryLimit(-1); got != before {
		t.Errorf("without a limit: got %d, want %d", got, before)
	}
	heedMemoryLimit(root)
	if got := debug.SetMemoryLimit(-1); got != 3<<30 {
		t.Errorf("got %d, want %d", got, int64(3<<30))
	}
}
