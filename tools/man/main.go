// Man makes the manual page of tp0 from what `tp0 -h` prints, so that there is one table of
// modes and settings.
//
//	tp0 -h | go run ./tools/man -version v1.0 >tp0.1
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

func main() {
	version := flag.String("version", "", "version of the program")
	flag.Parse()
	out := bufio.NewWriter(os.Stdout)
	err := page(out, os.Stdin, *version)
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

// A setting is what -h says of one.
type setting struct{ key, env, def, help, takes string }

// help is what -h says.
type help struct {
	modes    [][2]string // name and what it does
	settings []setting
}

// The lines of -h: a mode, the first line of a setting, and a further one.
var (
	modeLine    = regexp.MustCompile(`^  (\w+) +(.+)$`)
	settingLine = regexp.MustCompile(`^  ([\w.]+) +(\(flag only\)|[A-Z_]+(?:, [A-Z_]+)*) +(.+)$`)
	furtherLine = regexp.MustCompile(`^      (.+)$`)
)

// parseHelp reads what -h prints. A line that it does not know is an error.
func parseHelp(r io.Reader) (*help, error) {
	h := &help{}
	lines := bufio.NewScanner(r)
	for part := ""; lines.Scan(); {
		line := lines.Text()
		var last *setting
		if len(h.settings) > 0 {
			last = &h.settings[len(h.settings)-1]
		}
		further := furtherLine.FindStringSubmatch(line)
		mode, first := modeLine.FindStringSubmatch(line), settingLine.FindStringSubmatch(line)
		switch {
		case line == "" || strings.HasPrefix(line, "usage: ") || strings.HasPrefix(line, "  key  "):
		case !strings.HasPrefix(line, " "):
			part, _, _ = strings.Cut(line, ",")
		case part == "modes" && mode != nil:
			h.modes = append(h.modes, [2]string{mode[1], mode[2]})
		case part == "settings" && further != nil && last != nil && last.help == "":
			last.help = further[1]
		case part == "settings" && further != nil && last != nil && last.takes == "":
			last.takes = strings.TrimPrefix(further[1], "takes ")
		case part == "settings" && first != nil:
			h.settings = append(h.settings, setting{key: first[1], env: first[2], def: first[3]})
		default:
			return nil, fmt.Errorf("a line of -h that is neither a mode nor a setting: %q", line)
		}
	}
	if len(h.modes) == 0 || len(h.settings) == 0 {
		return nil, fmt.Errorf("standard input is not what tp0 -h prints")
	}
	return h, lines.Err()
}

// escape makes text safe for roff: backslashes and hyphens as they stand, no line that is a
// request.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}

// page writes the manual page.
func page(w io.Writer, r io.Reader, version string) error {
	h, err := parseHelp(r)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, ".\\\" Made from tp0 \\-h by tools/man.\n.TH TP0 1 \"\" \"%s\" \"\"\n",
		escape(strings.TrimSpace("tp0 "+version)))
	io.WriteString(w, `.SH NAME
tp0 \- a lottery's central office, and its agencies' client
.SH SYNOPSIS
.B tp0 \-mode=\fIMODE\fR
.RB [ \-\fIkey\fR=\fIvalue\fR ...]
.br
.B tp0 \-version
.br
.B tp0 \-h
.SH DESCRIPTION
Agencies take lottery bets and keep them in a CSV file.
.B tp0 \-mode=client
reads that file and sends it in batches over TCP;
.BR "tp0 \-mode=server" ,
the central office, checks every bet, appends the good ones to a file,
and answers a batch only when its bets are safely on disk.
Whatever is killed, cut off or full: what was answered is not lost, and nothing is stored twice.
.SH MODES
`)
	for _, m := range h.modes {
		fmt.Fprintf(w, ".TP\n.B %s\n%s\n", escape(m[0]), escape(m[1]))
	}
	io.WriteString(w, `.SH SETTINGS
Each is taken from the first that has it: the flag
.RB ( \-\fIkey\fR=\fIvalue\fR ),
the environment, the config file, the default.
`)
	for _, s := range h.settings {
		fmt.Fprintf(w, ".TP\n.B %s\n%s.\n.br\nTakes %s.\n.br\nEnvironment: %s. Default: %s.\n",
			escape(s.key), escape(s.help), escape(s.takes), escape(strings.Trim(s.env, "()")), escape(s.def))
	}
	_, err = io.WriteString(w, `.SH EXIT STATUS
.TP
.B 0
Done; also after SIGTERM or SIGINT, and when some bets were refused.
.TP
.B 1
The work failed.
.TP
.B 2
The command line, the environment or the config file is wrong.
.SH FILES
.TP
.I config.yaml
The config file, a subset of YAML: nested mappings by indentation, scalars, comments.
The parts of a key are nested: \fBserver.port\fR is \fBport\fR below \fBserver\fR.
.TP
.I bets.csv
The stored bets; beside it the server keeps files of its own, named after it.
.TP
.I .data/agency\-1.csv
The bets of agency 1: first name, last name, document, birthdate, number.
.SH NOTES
Under systemd a server tells when it is ready, whether it takes bets, and that its disk moves
.RB ( Type=notify ", " WatchdogSec ).
It keeps its heap below three quarters of the memory limit of its control group,
or below
.B GOMEMLIMIT
where that is set.
.PP
A second SIGTERM or SIGINT ends the program at once.
`)
	return err
}
