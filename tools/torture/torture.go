// Package torture says how much of the tests that take as long as they take: `make torture`.
package torture

import (
	"os"
	"strconv"
	"testing"
)

// Count returns how often the test is to do what it does: what the environment variable name
// says, or def. Unless TORTURE is set it skips the test.
func Count(t testing.TB, name string, def int) int {
	t.Helper()
	if os.Getenv("TORTURE") == "" {
		t.Skipf("SKIPPED: torture takes long: set TORTURE=1 (and %s=%d or another count), or make torture", name, def)
	}
	return Number(t, name, def)
}

// Number returns the number that an environment variable sets, or def.
func Number(t testing.TB, name string, def int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s: got %q, want a number from 1 up", name, text)
	}
	return n
}
