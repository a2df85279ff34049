//go:build !notls

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Keys: who a peer is, is known by its public key alone, as with ssh. There is no authority,
// and nothing expires: the certificates only carry the keys, since TLS wants to see one.
// docs/security.md is the same for an operator. The files:
//
//	server.pem       the server's private key and its certificate
//	server-next.pem  the key that is to replace it one day
//	servers.crt      the certificates of both, which are no secret
//	agency-7.pem     an agency's private key, its certificate, and those of the servers
//	known            a line a key: agency-7 sha256:BASE64 2026-11-24

// A fingerprint is what a key is known by: the SHA-256 of a public key in the form of
// SubjectPublicKeyInfo, which is the same in every certificate of that key.
type fingerprint [sha256.Size]byte

func (f fingerprint) String() string { return "sha256:" + base64.StdEncoding.EncodeToString(f[:]) }

func fingerprintOf(c *x509.Certificate) fingerprint { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// maxKeyText is how long a file of keys may be, in bytes: many thousand lines of known.
const maxKeyText = 1 << 20

// readKeyText reads a file that somebody else may be writing to, or that may not be one.
// It fails when the file grants any of the rights in deny, where files have rights.
func readKeyText(path string, deny fs.FileMode) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: is no regular file", path)
	case info.Mode().Perm()&deny != 0 && runtime.GOOS != "windows":
		return nil, fmt.Errorf("%s: its rights are %04o, so others can get at it: chmod 600 %s",
			path, info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyText+1))
	if err == nil && len(text) > maxKeyText {
		err = fmt.Errorf("%s: is longer than %d bytes", path, maxKeyText)
	}
	return text, err
}

// A keyFile is what tls.cert names: the own key and the certificate that carries it, and the
// keys of the servers to which a client speaks.
type keyFile struct {
	path    string
	cert    tls.Certificate
	own     fingerprint
	servers map[fingerprint]bool // of all certificates in the file but the own
}

// loadKeyFile reads a key file. Its errors are usage errors.
func loadKeyFile(path string) (*keyFile, error) {
	text, err := readKeyText(path, 0o077)
	if err != nil {
		return nil, usageErrorf("tls.cert: %v", err)
	}
	k := &keyFile{path: path, servers: map[fingerprint]bool{}}
	if err := k.parse(text); err != nil {
		return nil, usageErrorf("tls.cert: %s: %v", path, err)
	}
	return k, nil
}

// parse reads the PEM blocks of a key file, in whatever order they come. Kinds that are not
// looked for, such as EC PARAMETERS, are skipped.
func (k *keyFile) parse(text []byte) error {
	var key *ecdsa.PrivateKey
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return fmt.Errorf("certificate %d in it: %v", len(certs)+1, err)
			}
			certs = append(certs, cert)
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			if key != nil {
				return errors.New("holds two private keys: takes one")
			}
			var err error
			if key, err = parseKey(block); err != nil {
				return err
			}
		}
	}
	if key == nil {
		return errors.New("holds no private key: make one with tp0 -mode=keys")
	}
	k.cert.PrivateKey = key
	for _, cert := range certs {
		if key.PublicKey.Equal(cert.PublicKey) {
			k.own = fingerprintOf(cert)
			k.cert.Certificate, k.cert.Leaf = [][]byte{cert.Raw}, cert
		} else {
			k.servers[fingerprintOf(cert)] = true
		}
	}
	if k.cert.Leaf == nil {
		return fmt.Errorf("none of its %d certificates belongs to its private key", len(certs))
	}
	return nil
}

// parseKey reads a private key, in any of the forms in which tools write those that are taken.
func parseKey(block *pem.Block) (*ecdsa.PrivateKey, error) {
	if strings.Contains(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "" {
		return nil, errors.New("its private key is encrypted: decrypt it (openssl pkey -in …), and keep it mode 0600")
	}
	var key any
	var err error
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("its private key: %v", err)
	}
	if ec, ok := key.(*ecdsa.PrivateKey); ok && ec.Curve == elliptic.P256() {
		return ec, nil
	}
	kind, _, _ := strings.Cut(strings.TrimPrefix(fmt.Sprintf("%T", key), "*"), ".")
	return nil, fmt.Errorf("its private key is of another kind (%s): takes ECDSA on P-256, as -mode=keys "+
		"makes it", kind)
}

// A knownKey is what the file of known keys says of one.
type knownKey struct {
	agency uint8
	made   time.Time
}

// readKnown reads the file of known keys: whose each one is. Whoever may write to it lets
// in whom they like, so that is its owner's alone, or their group's.
func readKnown(path string) (text []byte, known map[fingerprint]knownKey, err error) {
	if text, err = readKeyText(path, 0o002); err != nil {
		return nil, nil, err
	}
	if known, err = parseKnown(text); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return text, known, err
}

// parseKnown reads the text of a known file. A text without anything in it is an error: an
// editor that empties the file before it writes must not throw all agencies out.
func parseKnown(text []byte) (map[fingerprint]knownKey, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("is empty: to let nobody in leave a comment in it")
	}
	known := map[fingerprint]knownKey{}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		key, line, err := parseKnownLine(words)
		if before, twice := known[key]; err == nil && twice {
			err = fmt.Errorf("the key stands above already, as agency %d's", before.agency)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		known[key] = line
	}
	return known, nil
}

// parseKnownLine reads `agency-7 sha256:BASE64 2026-11-24`. There is one spelling for each.
func parseKnownLine(words []string) (key fingerprint, known knownKey, err error) {
	if len(words) != 3 {
		return key, known, fmt.Errorf("has %d words: takes agency-N, sha256:…, and a date", len(words))
	}
	digits, named := strings.CutPrefix(words[0], "agency-")
	n, err := strconv.ParseUint(digits, 10, 8)
	if !named || err != nil || n == 0 || strconv.FormatUint(n, 10) != digits {
		return key, known, fmt.Errorf("%.64q: takes agency-1 to agency-255", words[0])
	}
	base, named := strings.CutPrefix(words[1], "sha256:")
	sum, err := base64.StdEncoding.Strict().DecodeString(base)
	if !named || err != nil || len(sum) != len(key) {
		return key, known, fmt.Errorf("%.64q: takes sha256: and the fingerprint's 44 characters", words[1])
	}
	made, err := time.Parse(time.DateOnly, words[2])
	if err != nil {
		return key, known, fmt.Errorf("%.64q: takes a date, YYYY-MM-DD", words[2])
	}
	return fingerprint(sum), knownKey{uint8(n), made}, nil
}

// keysDir is where mode keys makes its files.
const keysDir = "keys"

// A keyMaker makes key files in keysDir. It overwrites none, and it only ever appends to
// known and servers.crt.
type keyMaker struct {
	lines, notes io.Writer     // for the lines of known, and for what else is to be said
	servers      []byte        // the certificates of the servers, in PEM
	office       bool          // there is a known file here: this is not an agency that makes its own key
	count        map[uint8]int // keys of each agency that are known
}

// runKeys is mode keys. With -agencies it makes what is missing of the keys of a server and of
// agencies 1 to N, with -id one key more of an agency. It prints the lines of known.
func runKeys(cfg *config, lines, notes io.Writer) error {
	if cfg.agencies == 0 && cfg.id == 0 {
		return usageErrorf("-mode=keys: takes -agencies=N (keys of a server, and of agencies 1 to N) or -id=N " +
			"(one more)")
	}
	if err := os.MkdirAll(keysDir, 0o700); err != nil {
		return err
	}
	m := &keyMaker{lines: lines, notes: notes, count: map[uint8]int{}}
	office := cfg.agencies > 0
	if err := errors.Join(m.openServers(office), m.openKnown(office)); err != nil {
		return err
	}
	if cfg.agencies == 0 {
		return m.makeAgency(uint8(cfg.id))
	}
	for n := range cfg.agencies {
		if m.count[uint8(n+1)] > 0 {
			continue
		}
		if err := m.makeAgency(uint8(n + 1)); err != nil {
			return err
		}
	}
	return nil
}

// openServers reads the certificates of the servers. If make says so it makes the keys that are
// missing: the server's, unless it was moved to where the server runs (its certificate is here),
// and the next one, when the one that was next is the server's by now.
func (m *keyMaker) openServers(make bool) (err error) {
	all := filepath.Join(keysDir, "servers.crt")
	if m.servers, err = os.ReadFile(all); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	missing := len(m.servers) == 0
	for _, server := range []string{"server", "server-next"} {
		path := filepath.Join(keysDir, server+".pem")
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && make && missing {
			text, _, err = m.makeKey(path, "tp0 "+server, nil)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		cert := certificatesIn(text)
		if !bytes.Contains(m.servers, cert) {
			m.servers = append(m.servers, cert...)
			if err := write(all, os.O_APPEND, cert); err != nil {
				return err
			}
		}
		missing = bytes.HasSuffix(m.servers, cert) // none was made to follow it
	}
	return nil
}

// openKnown counts the keys that are known, and makes the file if make says so.
func (m *keyMaker) openKnown(make bool) error {
	name := filepath.Join(keysDir, "known")
	if make {
		err := write(name, os.O_EXCL, []byte("# The keys that are let in, a line each. To withdraw one delete "+
			"its line.\n"))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	text, known, err := readKnown(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, key := range known {
		m.count[key.agency]++
	}
	m.office = true
	if text[len(text)-1] != '\n' {
		return write(name, os.O_APPEND, []byte("\n"))
	}
	return nil
}

// makeAgency makes a key file for an agency, and its line.
func (m *keyMaker) makeAgency(agency uint8) error {
	owner := fmt.Sprintf("agency-%d", agency)
	for n := m.count[agency] + 1; ; n++ {
		path := filepath.Join(keysDir, owner)
		if n > 1 {
			path += fmt.Sprintf("-%d", n)
		}
		path += ".pem"
		_, key, err := m.makeKey(path, owner, m.servers)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s %s %s\n", owner, key, time.Now().Format(time.DateOnly))
		if m.office {
			if err := write(filepath.Join(keysDir, "known"), os.O_APPEND, []byte(line)); err != nil {
				return err
			}
		} else {
			fmt.Fprintf(m.notes, "send this line to the office, for its known; append the office's "+
				"servers.crt to %s\n", path)
		}
		_, err = io.WriteString(m.lines, line)
		return err
	}
}

// makeKey makes a key and a certificate for it, and writes both to a new file, with more
// behind them. The certificate is valid from 1970 to the end of time: who knows the key
// does not ask for the date, and a board without a clock starts in 1970.
func (m *keyMaker) makeKey(path, owner string, more []byte) (text []byte, key fingerprint, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, key, err
	}
	template := x509.Certificate{
		Subject:               pkix.Name{CommonName: owner},
		DNSNames:              []string{"tp0"}, // for TLS libraries that insist on a name
		NotBefore:             time.Unix(0, 0),
		NotAfter:              time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, &template, &template, &private.PublicKey, private)
	secret, errSecret := x509.MarshalPKCS8PrivateKey(private)
	public, errPublic := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err = errors.Join(err, errSecret, errPublic); err != nil {
		return nil, key, err
	}
	text = slices.Concat(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), more)
	if err = write(path, os.O_EXCL, text); err == nil {
		fmt.Fprintf(m.notes, "made %s\n", path)
	}
	return text, sha256.Sum256(public), err
}

// certificatesIn returns the certificates of a PEM text, as text.
func certificatesIn(text []byte) (certs []byte) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			certs = append(certs, pem.EncodeToMemory(block)...)
		}
	}
	return certs
}

// write writes a file in one write, so that a server which reads it sees all of it or nothing.
// With O_EXCL the file must not exist, with O_APPEND it may.
func write(path string, flag int, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|flag, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
