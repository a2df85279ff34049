package main

import (
	"fmt"
	"strconv"
	"time"
)

// Numbers, sizes, durations and times as people read them.

// countText writes a number with a comma between thousands.
func countText(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// sizeText writes a number of bytes.
func sizeText(n uint64) string {
	if n < 10e9 {
		return countText(n/1e6) + " MB"
	}
	return countText(n/1e9) + " GB"
}

// shortText writes a duration of seconds that may be very short.
func shortText(seconds float64) string {
	return time.Duration(seconds * 1e9).Round(100 * time.Microsecond).String()
}

// longText writes a duration of seconds that may be very long.
func longText(seconds float64) string {
	switch {
	case seconds < 90*60:
		return fmt.Sprintf("%.0f min", seconds/60)
	case seconds < 48*3600:
		return fmt.Sprintf("%.0f h", seconds/3600)
	}
	return fmt.Sprintf("%.0f days", seconds/86400)
}

// timeText writes a time, with its day where that is not today.
func timeText(now, t time.Time) string {
	if now.Sub(t) < 12*time.Hour || now.YearDay() == t.YearDay() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04")
}
