//go:build !notls

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// TLS on both sides: 1.3 alone, each side shows a certificate, and nothing of it counts but
// the key that it carries. What goes wrong is said on the side that can mend it.

// handshakeTime is how long a handshake may take.
const handshakeTime = 15 * time.Second

// recordMax is how many bytes a client puts into a record: two messages nearly, less than the
// 16 KiB that a record takes. The other side keeps a buffer for the longest record as long as the
// connection lasts, which is 16 KiB for these and 18 for those.
const recordMax = 15 << 10

// A dialer connects to a server.
type dialer = func(ctx context.Context, address string) (net.Conn, error)

// newTLS returns what both sides have in common. check is asked about the other side's
// certificate before anything is sent to it or taken from it.
//
// There are no session tickets: a peer whose key was removed could come back with one.
// Records are long from the first on: they carry files, no web pages.
func newTLS(k *keyFile, check func(*x509.Certificate) error) *tls.Config {
	return &tls.Config{
		Certificates:                []tls.Certificate{k.cert},
		MinVersion:                  tls.VersionTLS13,
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		// A server's certificate is not looked up in the system's list of authorities, and its
		// dates and names mean nothing: VerifyConnection, which is asked in any case, knows its
		// key.
		InsecureSkipVerify: true,
		ClientAuth:         tls.RequireAnyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			key, ok := s.PeerCertificates[0].PublicKey.(*ecdsa.PublicKey)
			if !ok || key.Curve != elliptic.P256() {
				return fmt.Errorf("its key is %s: ECDSA on P-256 alone "+
					"is taken", s.PeerCertificates[0].PublicKeyAlgorithm)
			}
			return check(s.PeerCertificates[0])
		},
	}
}

// newDialer returns the function by which a client connects. It is plain itself where tls.cert
// is not set.
func newDialer(cfg *config, plain dialer) (dialer, error) {
	if cfg.tlsCert == "" {
		return plain, nil
	}
	k, err := loadKeyFile(cfg.tlsCert)
	if err != nil {
		return nil, err
	}
	if len(k.servers) == 0 && cfg.mode == "health" {
		k.servers[k.own] = true // the server's own file: its container asks for its health
	}
	if len(k.servers) == 0 {
		return nil, usageErrorf("tls.cert: %s: has no certificate of a server: append the office's servers.crt", k.path)
	}
	return func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := plain(ctx, address)
		if err != nil {
			return nil, err
		}
		c := &clientConn{raw: conn, keys: k, address: address}
		c.Conn = tls.Client(conn, newTLS(k, c.checkServer))
		if err := c.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, c.explain(&net.OpError{Op: "TLS handshake", Net: "tcp", Addr: conn.RemoteAddr(), Err: err})
		}
		return c, nil
	}, nil
}

// A clientConn is a client's connection to a server whose key it knows.
type clientConn struct {
	*tls.Conn
	raw     net.Conn
	keys    *keyFile
	address string
	strange error // the server's key is none of those in the key file
}

// checkServer refuses a server whose key is not in the key file. Nothing has been sent to it.
func (c *clientConn) checkServer(cert *x509.Certificate) error {
	if key := fingerprintOf(cert); !c.keys.servers[key] {
		c.strange = peerErrorf("%s shows a key that %s does not hold, %s: somebody may be posing as the server; "+
			"nothing was sent: ask the central office for its fingerprint", c.address, c.keys.path, key)
		return c.strange
	}
	return nil
}

// Read reads. With TLS 1.3 a client is done with the handshake before the server has seen its
// key: a refusal comes with the first read.
func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		err = c.explain(err)
	}
	return n, err
}

// Write writes p in records of recordMax.
func (c *clientConn) Write(p []byte) (n int, err error) {
	for part := range slices.Chunk(p, recordMax) {
		written, err := c.Conn.Write(part)
		if n += written; err != nil {
			return n, err
		}
	}
	return n, nil
}

// Close ends the connection at once. The end of TLS, for which it might have to wait, says
// nothing that the messages do not say.
func (c *clientConn) Close() error { return c.raw.Close() }

// explain turns what package tls says, where another attempt would not help, into the line
// that says who has to do what.
func (c *clientConn) explain(err error) error {
	var record tls.RecordHeaderError
	switch {
	case c.strange != nil:
		return c.strange
	case errors.As(err, &record):
		return peerErrorf("%s does not speak TLS: set tls.cert and tls.known there, or no tls.cert here", c.address)
	case strings.Contains(err.Error(), "remote error: tls: bad certificate"):
		return peerErrorf("%s does not know this key, %s of %s: send that to the central office, for its file known",
			c.address, c.keys.own, c.keys.path)
	case strings.Contains(err.Error(), "remote error: "):
		return peerErrorf("%s refuses this connection (%v): its log says why", c.address, err)
	}
	return err
}

// explainHandshake says why a handshake failed on the server's side, and what to do.
func explainHandshake(err error) (reason, todo string) {
	reason = strings.TrimPrefix(err.Error(), "tls: ")
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &record):
		return "garbage where a TLS handshake should be", ""
	case strings.Contains(reason, "client offered only unsupported versions"):
		return "the client offers no TLS 1.3", "it needs a TLS library that has it"
	case strings.Contains(reason, "client didn't provide a certificate"):
		return "the client shows no certificate", "set tls.cert on its side"
	case strings.Contains(reason, "remote error: tls: bad certificate"):
		return "the client does not know this server's key", "append servers.crt to its key file"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "the handshake was not done in " + handshakeTime.String(), ""
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET):
		return "the connection ended in the middle of the handshake", ""
	}
	return reason, ""
}

// A stranger is a connection whose key is not known yet. Once it is, it stays below its TLS.
type stranger struct {
	net.Conn
	waits  atomic.Int64 // since when it is waited for, in ns since 1970; 0: it is not
	first  []byte       // what was read ahead
	head   [5]byte      // of the record that comes: its kind, a version, u16 its length
	got    int          // bytes of head that have come
	behind int          // bytes behind the head that have not
}

// Read reads, and notes that the stranger is waited for. It reads to the end of a record and no
// further: package tls keeps what it reads ahead for the connection's life, in a buffer that
// becomes twice as large by that. Measured, an idle connection has 20 KiB less.
func (s *stranger) Read(p []byte) (n int, err error) {
	left := s.behind
	if left == 0 {
		left = len(s.head) - s.got
	}
	p = p[:min(len(p), left)]
	if len(s.first) > 0 {
		n = copy(p, s.first)
		s.first = s.first[n:]
	} else {
		s.waits.Store(time.Now().UnixNano())
		n, err = s.Conn.Read(p)
		s.waits.Store(0)
	}
	if s.behind > 0 {
		s.behind -= n
		return n, err
	}
	s.got += copy(s.head[s.got:], p[:n])
	if s.got == len(s.head) {
		s.got, s.behind = 0, int(binary.BigEndian.Uint16(s.head[3:]))
	}
	return n, err
}
