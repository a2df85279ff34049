package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"sync"
)

// The strangers are connections that nobody knows and that stay: a fifth says nothing, a fifth
// speaks another protocol, a fifth sends what only begins like TLS, a fifth stops in the middle of
// the handshake, and a fifth shows a key that the server does not know.
const strangers, strangersAtOnce = 2000, 20

// The load is measured alone, and with all strangers coming while it goes on.
var (
	timeAlone     = metric{name: "TLS, window 32: time alone", unit: "s", digits: 2}
	timeInCrowd   = metric{name: "TLS, window 32: time beside 2,000 strangers", unit: "s", digits: 2}
	timeOfAlone   = metric{name: "TLS, window 32: that of the time alone", digits: 2}.atMost(2, 1)
	crowdedMemory = metric{name: "TLS: server memory beside 2,000 strangers", unit: "MiB", digits: 1, worst: true}.
			atMost(64, 0)
)

// crowded measures the load with keys beside strangers.
func (b *bench) crowded(ctx context.Context) error {
	if b.keys == "" {
		return nil
	}
	b.keyed = true
	defer func() { b.keyed, b.beside = false, nil }()
	alone, err := b.load(ctx, b.data, 32)
	if err != nil {
		return fmt.Errorf("with keys: %w", err)
	}
	unknown, err := unknownKey()
	if err != nil {
		return err
	}
	b.beside = func(address string) (stop func()) { return crowd(address, unknown) }
	crowded, err := b.load(ctx, b.data, 32)
	if err != nil {
		return fmt.Errorf("beside %d strangers: %w", strangers, err)
	}
	b.table.add(timeAlone, alone.took.Seconds())
	b.table.add(timeInCrowd, crowded.took.Seconds())
	b.table.add(timeOfAlone, crowded.took.Seconds()/alone.took.Seconds())
	b.table.add(crowdedMemory, crowded.serverRSS/mebi)
	return nil
}

// crowd lets the strangers come. stop sends them away.
func crowd(address string, unknown *tls.Config) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	conns := make([]net.Conn, strangers)
	var all sync.WaitGroup
	for worker := range strangersAtOnce {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := worker; i < strangers; i += strangersAtOnce {
				var d net.Dialer
				c, err := d.DialContext(ctx, "tcp", address)
				if err != nil {
					return // the server has ended, or the load has
				}
				conns[i] = c
				switch i / strangersAtOnce % 5 {
				case 0:
				case 1:
					c.Write([]byte("GET / HTTP/1.1\r\nHost: office\r\n\r\n"))
				case 2:
					c.Write(append([]byte{0x16, 3, 1, 0, 200}, make([]byte, 300)...))
				case 3:
					c.Write([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3})
				case 4:
					go tls.Client(c, unknown).HandshakeContext(ctx)
				}
			}
		}()
	}
	return func() {
		cancel()
		all.Wait()
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}
}

// unknownKey returns how somebody comes whose key nobody knows.
func unknownKey() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	is := &x509.Certificate{SerialNumber: big.NewInt(1)}
	cert, err := x509.CreateCertificate(rand.Reader, is, is, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	pair := tls.Certificate{Certificate: [][]byte{cert}, PrivateKey: key}
	return &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}, nil
}
