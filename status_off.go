//go:build nohttp || notls

package main

import (
	"context"
	"log/slog"
	"net"
)

// statusConns is how many connections there are beside those of conn.max.
const statusConns = 0

// openStatus refuses the settings of the status page: this build has none.
func openStatus(_ context.Context, cfg *config, _ *counts, _ sharedLog, _ *slog.Logger) (
	opened func(*store, net.Listener), stop func(), err error) {
	if cfg.statusAddress != "" {
		return nil, nil, usageErrorf("status.address: this build has no status page (it was made with TAGS=nohttp or " +
			"notls): leave it out")
	}
	if cfg.statusHosts != "" {
		return nil, nil, usageErrorf("status.hosts: this build has no status page (it was made with TAGS=nohttp or " +
			"notls): leave it out")
	}
	return func(*store, net.Listener) {}, func() {}, nil
}
