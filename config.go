package main

// Where the values of settings come from: flags, environment, config file and
// defaults; what -h and usage errors say of them. The settings themselves are
// in settings.go.
//
// A usage error reads "place: key: text reason: takes what": where it was found
// (config.yaml:7, CLI_ID, -id), what is wrong there, and what would be right.

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// defaultConfigFile is read where it exists and no -config names another file.
const defaultConfigFile = "config.yaml"

// A usageError is a mistake in the command line, the environment or the config
// file: main prints it in one line and exits with status 2.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// usageErrorf makes a usageError.
func usageErrorf(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// A loader fills a config. It takes the sources one after the other, the
// weakest first, so that the best has the last word and a mistake in one that a
// better one hides does not lie in wait.
type loader struct {
	config    *config
	table     []*setting // of config
	lookupEnv func(string) (string, bool)
}

// loadConfig takes each setting from the first of flags, environment, config
// file and default that has it. Every error is a *usageError. With -h or
// -version nothing but the flags is looked at.
func loadConfig(args []string, lookupEnv func(string) (string, bool)) (*config, error) {
	c := &config{origins: map[string]string{}}
	l := &loader{c, settingsOf(c), lookupEnv}
	for _, s := range l.table {
		if s.noDef == "" {
			s.value.set(s.def) // the table has good ones
		}
	}
	// The flags come twice: first for -version and -config, and then to have the last word.
	if err := l.takeFlags(args); err != nil || c.help || c.version {
		return c, err
	}
	if err := l.takeFile(); err != nil {
		return nil, err
	}
	if err := l.takeEnvironment(); err != nil {
		return nil, err
	}
	if err := l.takeFlags(args); err != nil {
		return nil, err
	}
	return c, l.complete()
}

// take sets s to text, found at origin.
func (l *loader) take(s *setting, text, origin string) error {
	if err := s.value.set(text); err != nil {
		if s.secret {
			text = "(a secret)"
		}
		return usageErrorf("%s %.64q %v: takes %s", place(s, origin), text, err, s.value.takes)
	}
	l.config.origins[s.key] = origin
	return nil
}

// place starts an error about s: where it was found, then the key.
func place(s *setting, origin string) string {
	switch origin {
	case "":
		return s.key + ":"
	case "-" + s.key:
		return origin + ":"
	}
	return origin + ": " + s.key + ":"
}

// find returns the setting with this key, or nil.
func (l *loader) find(key string) *setting {
	for _, s := range l.table {
		if s.key == key {
			return s
		}
	}
	return nil
}

// takeFlags takes what the command line has.
func (l *loader) takeFlags(args []string) error {
	flags := flag.NewFlagSet("tp0", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // a usage error is one line, not the whole table
	var taken error             // the first error of take, which is no reason not to see a -h behind it
	for _, s := range l.table {
		define := flags.Func
		if s.value.isBool {
			define = flags.BoolFunc
		}
		define(s.key, "", func(text string) error {
			if err := l.take(s, text, "-"+s.key); taken == nil {
				taken = err
			}
			return nil
		})
	}
	err := flags.Parse(args)
	if l.config.help = errors.Is(err, flag.ErrHelp); l.config.help {
		return nil
	}
	if err != nil {
		return l.flagError(err)
	}
	if taken == nil && flags.NArg() > 0 {
		return usageErrorf("unexpected argument %.64q: settings are written -key=value (-h lists them)", flags.Arg(0))
	}
	return taken
}

// flagError adds what to do to an error of package flag, which has no types
// for them, only fixed texts.
func (l *loader) flagError(err error) error {
	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		return usageErrorf("unknown flag %.64q (nearest: -%s; -h lists all)", "-"+name, nearestKey(name, l.table))
	}
	if name, ok := strings.CutPrefix(err.Error(), "flag needs an argument: -"); ok {
		return usageErrorf("-%s: no value: takes %s", name, l.find(name).value.takes)
	}
	return usageErrorf("%.200v (-h lists all flags)", err)
}

// takeEnvironment takes what the environment has. An empty variable counts as none.
func (l *loader) takeEnvironment() error {
	for _, s := range l.table {
		for _, name := range slices.Backward(strings.Fields(s.env)) { // the first has the last word
			if text, _ := l.lookupEnv(name); text != "" {
				if err := l.take(s, text, name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// takeFile takes what the config file has: the one that -config names, which
// must be there, or else defaultConfigFile, which may be missing.
func (l *loader) takeFile() error {
	name := cmp.Or(l.config.file, defaultConfigFile)
	f, err := os.Open(name)
	if l.config.file == "" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var text []byte
	if err == nil {
		defer f.Close()
		text, err = io.ReadAll(io.LimitReader(f, maxYAML+1)) // whatever the file is
	}
	if err != nil {
		return usageErrorf("config: %v: takes a file that can be read", err)
	}
	entries, line, err := parseYAML(text)
	if err != nil {
		return usageErrorf("%s:%d: %v", name, line, err)
	}
	for _, e := range entries {
		if err := l.takeEntry(e, fmt.Sprintf("%s:%d", name, e.line)); err != nil {
			return err
		}
	}
	return nil
}

// takeEntry takes an entry of the config file, found at origin.
func (l *loader) takeEntry(e yamlEntry, origin string) error {
	s := l.find(e.key)
	switch {
	case s == nil || s.flagOnly:
		return l.checkGroup(e, origin)
	case e.kind == yamlNull:
		return usageErrorf("%s no value: takes %s", place(s, origin), s.value.takes)
	case e.kind == yamlGroup:
		return usageErrorf("%s is a setting, not a group: takes %s", place(s, origin), s.value.takes)
	case s.value.integer:
		return l.take(s, e.decimal(), origin)
	}
	return l.take(s, e.value, origin)
}

// checkGroup looks at an entry that is no setting: it should be a group of them, and may be one
// whose settings are commented out.
func (l *loader) checkGroup(e yamlEntry, origin string) error {
	inFile := slices.DeleteFunc(slices.Clone(l.table), func(s *setting) bool { return s.flagOnly })
	var inGroup []string
	for _, s := range inFile {
		if strings.HasPrefix(s.key, e.key+".") {
			inGroup = append(inGroup, s.key)
		}
	}
	switch {
	case len(inGroup) == 0:
		return usageErrorf("%s: unknown key %.64q (nearest: %s)", origin, e.key, nearestKey(e.key, inFile))
	case e.kind != yamlGroup && e.kind != yamlNull:
		return usageErrorf("%s: %s: is a group, not a setting: takes %s, indented below it",
			origin, e.key, strings.Join(inGroup, ", "))
	}
	return nil
}

// complete checks what no setting shows alone and fills in what depends on others.
func (l *loader) complete() error {
	c := l.config
	switch {
	case c.mode == "":
		return usageErrorf("-mode: not given: takes %s", l.find("mode").value.takes)
	case c.id > 0:
	case slices.Contains([]string{"client", "bet", "check", "forget"}, c.mode):
		return usageErrorf("id: not set by -id, CLI_ID or config file: -mode=%s needs it: takes %s",
			c.mode, l.find("id").value.takes)
	case c.mode == "sample":
		c.id = 1
	}
	// Where a mode has no agency the {id} stays: such a mode opens none of these files.
	withID := func(text string) string {
		if c.id == 0 {
			return text
		}
		return strings.ReplaceAll(text, "{id}", strconv.Itoa(c.id))
	}
	c.dataFile, c.tlsCert = withID(c.dataFile), withID(c.tlsCert)
	c.dataSource = withID(cmp.Or(c.dataSource, filepath.Base(c.dataFile)))
	source := strings.TrimSuffix(c.dataSource, ".csv")
	c.dataRejects = strings.ReplaceAll(withID(c.dataRejects), "{source}", source)
	// Checked once more: the base name and the {id} came after take.
	if s := l.find("data.source"); c.mode == "client" || c.mode == "forget" {
		return l.take(s, c.dataSource, l.config.origins[s.key])
	}
	return nil
}

// nearestKey returns the key of table that is most like word. A word may also
// be like a key's last part, or like the group before it, at the price of one
// edit.
func nearestKey(word string, table []*setting) string {
	best, least := "", math.MaxInt
	for _, s := range table {
		d := editDistance(word, s.key)
		if group, name, ok := strings.Cut(s.key, "."); ok {
			d = min(d, 1+editDistance(word, group), 1+editDistance(word, name))
		}
		if d < least {
			best, least = s.key, d
		}
	}
	return best
}

// editDistance counts the letters to insert, delete or change that make a into
// b, upper and lower case being alike (Levenshtein). A long a is cut: it is like
// no key anyway.
func editDistance(a, b string) int {
	short, long := []rune(strings.ToLower(b)), []rune(strings.ToLower(a[:min(len(a), 64)]))
	row := make([]int, len(short)+1) // row[j]: distance of long[:i] to short[:j]
	for j := range row {
		row[j] = j
	}
	for i, r := range long {
		diagonal := row[0]
		row[0] = i + 1
		for j, q := range short {
			change := diagonal
			if r != q {
				change++
			}
			diagonal = row[j+1] // of the row above, before it is overwritten
			row[j+1] = min(change, diagonal+1, row[j]+1)
		}
	}
	return row[len(short)]
}

// usage prints what -h prints.
func usage(w io.Writer) {
	fmt.Fprint(w, "usage: tp0 -mode=MODE [-key=value ...]\n\nmodes\n")
	for _, m := range modes {
		fmt.Fprintf(w, "  %-9s %s\n", m.name, m.help)
	}
	fmt.Fprint(w, "\nsettings, each from the first that has it: ",
		"flag (-key=value), environment, config file, default\n")
	fmt.Fprintf(w, "  %-15s %-29s %s\n", "key", "environment", "default")
	for _, s := range settingsOf(new(config)) {
		env := strings.ReplaceAll(s.env, " ", ", ")
		if s.flagOnly {
			env = "(flag only)"
		}
		fmt.Fprintf(w, "  %-15s %-29s %s\n", s.key, env, s.def+s.noDef)
		fmt.Fprintf(w, "      %s\n      takes %s\n", s.help, s.value.takes)
	}
}
