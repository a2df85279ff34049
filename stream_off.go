//go:build nostream || notls

package main

import (
	"context"
	"log/slog"
)

// A build without the stream: smaller, and it says so where it is asked for one.

// canShare is false as a constant: so the linker leaves out all that only servers do that share a
// log.
const canShare = false

func openStream(cfg *config, _ *slog.Logger) (sharedLog, error) {
	if cfg.stream.servers != "" {
		return nil, usageErrorf("stream.servers: the stream is not built in (TAGS=nostream or notls): leave it " +
			"unset, or take another build")
	}
	return nil, nil
}

func runReplicate(context.Context, *config, *slog.Logger, *lineWriter) error {
	return usageErrorf("-mode=replicate: the stream is not built in (TAGS=nostream or notls): take another build")
}
