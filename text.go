package main

import (
	"fmt"
	"strconv"
	"strings"
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

// sizeText writes a number of bytes with two or three digits.
func sizeText(n uint64) string {
	size, unit := float64(n), "bytes"
	for _, larger := range []string{"KB", "MB", "GB", "TB"} {
		if size < 1000 {
			break
		}
		size, unit = size/1000, larger
	}
	if size < 10 && unit != "bytes" {
		return fmt.Sprintf("%.1f %s", size, unit)
	}
	return fmt.Sprintf("%.0f %s", size, unit)
}

// shortText writes a duration of seconds that may be very short.
func shortText(seconds float64) string {
	switch {
	case seconds < 0.0001:
		return "under 0.1 ms"
	case seconds < 0.01:
		return fmt.Sprintf("%.1f ms", seconds*1000)
	case seconds < 1:
		return fmt.Sprintf("%.0f ms", seconds*1000)
	}
	return fmt.Sprintf("%.1f s", seconds)
}

// longText writes a duration of seconds that may be very long.
func longText(seconds float64) string {
	switch {
	case seconds < 90:
		return fmt.Sprintf("%.0f s", seconds)
	case seconds < 90*60:
		return fmt.Sprintf("%.0f min", seconds/60)
	case seconds < 48*3600:
		return fmt.Sprintf("%.0f h", seconds/3600)
	case seconds < 2*365*86400:
		return fmt.Sprintf("%.0f days", seconds/86400)
	}
	return "years"
}

// timeText writes a time, with its day where that is not today.
func timeText(now, t time.Time) string {
	if now.Sub(t) < 12*time.Hour || now.YearDay() == t.YearDay() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04")
}

// agencyList lists agencies, of many only the first.
func agencyList(agencies []int) string {
	var words []string
	for i, agency := range agencies {
		if i == 12 {
			words = append(words, fmt.Sprintf("and %d more", len(agencies)-i))
			break
		}
		words = append(words, strconv.Itoa(agency))
	}
	return strings.Join(words, ", ")
}
