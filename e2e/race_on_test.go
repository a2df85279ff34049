//go:build race

package e2e

// raceEnabled reports whether the tests have the race detector: the program gets it as well.
const raceEnabled = true
