package main

// The values that settings take: how each type of value is read, checked and
// shown.

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What storeSync says besides an interval.
const (
	syncAlways time.Duration = 0  // a batch is answered once it is on stable storage
	syncNever  time.Duration = -1 // the system writes when it likes
)

// maxDuration bounds every duration, so that small multiples of one cannot overflow.
const maxDuration = 365 * 24 * time.Hour

// A settingValue reads, checks and shows a field of a config.
type settingValue struct {
	takes   string // completes "takes …" in errors and -h
	isBool  bool   // the flag alone means true
	integer bool   // a number in YAML's forms, octal and hexadecimal too, means what YAML says
	set     func(text string) error
	get     func() string
}

// valueOf returns the value of the field at, which parse reads and show writes.
// An error of parse says what is wrong with the text and does not repeat it.
func valueOf[T any](at *T, takes string, parse func(text string) (T, error), show func(T) string) settingValue {
	return settingValue{
		takes: takes,
		set: func(text string) error {
			value, err := parse(text)
			if err == nil {
				*at = value
			}
			return err
		},
		get: func() string { return show(*at) },
	}
}

// textValue takes what check accepts. Control characters are refused always:
// they would tear the log and hide in a file's name.
func textValue(at *string, takes string, check func(text string) error) settingValue {
	parse := func(text string) (string, error) {
		if strings.ContainsFunc(text, unicode.IsControl) {
			return "", errors.New("has a control character")
		}
		return text, check(text)
	}
	return valueOf(at, takes, parse, func(text string) string { return text })
}

// fileValue takes any text at all: whether a file can be opened is found out when it is.
func fileValue(at *string) settingValue {
	return textValue(at, "the name of a file", func(text string) error {
		if text == "" {
			return errors.New("is empty")
		}
		return nil
	})
}

// anyText takes the empty text as well, which unsets.
func anyText(string) error { return nil }

// addressValue takes an address that a server can bind, or none.
func addressValue(at *string) settingValue {
	return textValue(at, "host:port, the port from 0 to 65535", func(text string) error {
		if text == "" {
			return nil
		}
		return checkAddress(text, 0)
	})
}

// serversValue takes addresses that a client can dial, with commas between.
func serversValue(at *string) settingValue {
	takes := "host:port, the port from 1 to 65535, or several with commas between"
	return textValue(at, takes, func(text string) error {
		for address := range strings.SplitSeq(text, ",") {
			if err := checkAddress(address, 1); err != nil {
				return err
			}
		}
		return nil
	})
}

// addressesValue takes any number of addresses, with commas between.
func addressesValue(at *string) settingValue {
	return textValue(at, "host:port, with commas between where there are several", func(text string) error {
		if text == "" {
			return nil
		}
		for one := range strings.SplitSeq(text, ",") {
			host, port, err := net.SplitHostPort(one)
			if err == nil {
				_, err = parseInt(port, 1, 65535)
			}
			if err != nil || host == "" {
				return fmt.Errorf("has a part that is no address with a port: %.64q", one)
			}
		}
		return nil
	})
}

// maxStreamName keeps the subjects that are made of the name short.
const maxStreamName = 32

// streamNameValue takes what can be a stream's name and, in lower case, part of a subject.
func streamNameValue(at *string) settingValue {
	other := func(r rune) bool {
		return !('0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || r == '-' || r == '_')
	}
	takes := fmt.Sprintf("1 to %d letters, digits, - and _", maxStreamName)
	return textValue(at, takes, func(text string) error {
		switch {
		case text == "" || len(text) > maxStreamName:
			return fmt.Errorf("is %d bytes long", len(text))
		case strings.ContainsFunc(text, other):
			return errors.New("has a character that a stream's name may not have")
		}
		return nil
	})
}

// checkAddress says what is wrong with an address whose port is to be from low up.
func checkAddress(text string, low int64) error {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return errors.New("is not an address with a port")
	}
	if _, err = parseInt(port, low, 65535); err != nil {
		return fmt.Errorf("has a port that %w", err)
	}
	return nil
}

// hostValue refuses an address with a port or brackets, which the server would
// wrap in brackets once more and then fail to bind.
func hostValue(at *string) settingValue {
	return textValue(at, "a host name or address without a port", func(text string) error {
		if _, err := netip.ParseAddr(text); err != nil && strings.ContainsAny(text, ":[]/") {
			return errors.New("is not a host")
		}
		return nil
	})
}

// sourceValue keeps to what a HELLO message may carry.
func sourceValue(at *string) settingValue {
	return textValue(at, "1 to 255 bytes of UTF-8", func(text string) error {
		switch {
		case text == "" || len(text) > 255:
			return fmt.Errorf("is %d bytes long", len(text))
		case !utf8.ValidString(text):
			return errors.New("is not UTF-8")
		}
		return nil
	})
}

// intValue takes a number from low to high.
func intValue(at *int, low, high int64) settingValue {
	parse := func(text string) (int, error) { return parseInt(text, low, high) }
	value := valueOf(at, fmt.Sprintf("%d to %d", low, high), parse, strconv.Itoa)
	value.integer = true
	return value
}

// parseInt takes a decimal number from low to high, without plus sign and leading
// zeros: 010 is 8 to some. It is compared as 64 bits: an int of a 32-bit board
// would wrap before.
func parseInt(text string, low, high int64) (int, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && (n < low || n > high):
		return 0, errors.New("is out of range")
	case err != nil:
		return 0, errors.New("is not a whole number")
	case text != strconv.FormatInt(n, 10):
		return 0, errors.New("has a sign or zeros in front")
	}
	return int(n), nil
}

// boolValue takes the spellings of YAML's core schema from every source.
func boolValue(at *bool) settingValue {
	parse := func(text string) (bool, error) {
		switch text {
		case "true", "True", "TRUE":
			return true, nil
		case "false", "False", "FALSE":
			return false, nil
		}
		return false, errors.New("is neither true nor false")
	}
	value := valueOf(at, "true or false", parse, strconv.FormatBool)
	value.isBool = true
	return value
}

// durationValue takes a duration from low up.
func durationValue(at *time.Duration, low time.Duration) settingValue {
	takes := fmt.Sprintf("a duration like 1m30s or 200ms, from %v to 8760h", low)
	parse := func(text string) (time.Duration, error) { return parseDuration(text, low) }
	return valueOf(at, takes, parse, time.Duration.String)
}

// parseDuration takes a Go duration from low to maxDuration. It assumes no unit.
func parseDuration(text string, low time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, errors.New("is not a duration with a unit")
	case d < low || d > maxDuration:
		return 0, errors.New("is out of range")
	}
	return d, nil
}

// syncNames are the values of store.sync that are no interval.
var syncNames = map[string]time.Duration{"always": syncAlways, "never": syncNever}

// syncValue takes an interval, or syncAlways and syncNever by name.
func syncValue(at *time.Duration) settingValue {
	parse := func(text string) (time.Duration, error) {
		if d, ok := syncNames[text]; ok {
			return d, nil
		}
		return parseDuration(text, 1)
	}
	show := func(d time.Duration) string {
		for name, value := range syncNames {
			if d == value {
				return name
			}
		}
		return d.String()
	}
	return valueOf(at, "always, never, or a duration like 200ms, over 0s and up to 8760h", parse, show)
}

// levelValue takes a level's name in any case; WARN is short for WARNING.
func levelValue(at *slog.Level) settingValue {
	parse := func(text string) (slog.Level, error) {
		if strings.EqualFold(text, "WARN") {
			return slog.LevelWarn, nil
		}
		for level := slog.LevelDebug; level <= slog.LevelError; level++ {
			if strings.EqualFold(text, levelName(level)) {
				return level, nil
			}
		}
		return 0, errors.New("is not a level")
	}
	return valueOf(at, "DEBUG, INFO, WARNING or ERROR", parse, levelName)
}
