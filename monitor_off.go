//go:build !nostream && !notls && nohttp

package main

import (
	"context"
	"errors"
)

// A build without HTTP cannot ask the monitoring ports.

func monitors([]string) func(ctx context.Context) ([]replicaReport, error) {
	return func(context.Context) ([]replicaReport, error) {
		return nil, errors.New("stream.monitor needs HTTP, which is not built in (TAGS=nohttp)")
	}
}
