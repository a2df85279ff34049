//go:build notls

package main

import (
	"context"
	"io"
	"log/slog"
	"net"
)

// A build without TLS: smaller, and it says so where it is asked for keys.

// maxStrangers is how many connections there are beside those of conn.max.
const maxStrangers = 0

// A dialer connects to a server.
type dialer = func(ctx context.Context, address string) (net.Conn, error)

// refuseKeys refuses the settings that this build cannot serve.
func refuseKeys(cfg *config) error {
	for key, value := range map[string]string{"tls.cert": cfg.tlsCert, "tls.known": cfg.tlsKnown} {
		if value != "" {
			return usageErrorf("%s: TLS is not built in (TAGS=notls): leave it unset, or take another build", key)
		}
	}
	return nil
}

func loadGate(cfg *config, _ *slog.Logger) (func(net.Listener) net.Listener, error) {
	return func(l net.Listener) net.Listener { return l }, refuseKeys(cfg)
}

func newDialer(cfg *config, plain dialer) (dialer, error) { return plain, refuseKeys(cfg) }

func runKeys(*config, io.Writer, io.Writer) error {
	return usageErrorf("-mode=keys: TLS is not built in (TAGS=notls): take another build")
}
