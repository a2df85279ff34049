//go:build nohttp

package main

import "log/slog"

// serveStatus refuses the settings of the status page: this build has none.
func serveStatus(cfg *config, _ *office, _ *slog.Logger) (stop func(), err error) {
	if cfg.statusAddress != "" {
		return nil, usageErrorf("status.address: this build has no status page (it was made with TAGS=nohttp): " +
			"leave it out")
	}
	if cfg.statusHosts != "" {
		return nil, usageErrorf("status.hosts: this build has no status page (it was made with TAGS=nohttp): " +
			"leave it out")
	}
	return func() {}, nil
}
