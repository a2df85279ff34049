//go:build !nostream && !notls && !nohttp

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// maxReport is how many bytes a server may say of itself.
const maxReport = 8 << 20

// monitors returns how the servers are asked whose monitoring ports are at addresses. Who does not
// answer is left out, unless that is all of them.
func monitors(addresses []string) func(ctx context.Context) ([]replicaReport, error) {
	client := &http.Client{
		// No proxy, no connection that stays, and no other address than the one that was given.
		Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) (all []replicaReport, err error) {
		ctx, cancel := context.WithTimeout(ctx, replicaWait)
		defer cancel()
		reports, errs := make([]replicaReport, len(addresses)), make([]error, len(addresses))
		var asked sync.WaitGroup
		for i, address := range addresses {
			asked.Add(1)
			go func() {
				defer asked.Done()
				reports[i], errs[i] = askMonitor(ctx, client, address)
			}()
		}
		asked.Wait()
		for i, report := range reports {
			if errs[i] == nil {
				all = append(all, report)
			}
		}
		if len(all) == 0 {
			return nil, errors.Join(errs...)
		}
		return all, nil
	}
}

// askMonitor asks one server.
func askMonitor(ctx context.Context, client *http.Client, address string) (r replicaReport, err error) {
	var self struct {
		Name    string `json:"server_name"`
		Version string `json:"version"`
	}
	if err := getJSON(ctx, client, "http://"+address+"/varz", &self); err != nil {
		return r, err
	}
	r.Server.Name, r.Server.Version = self.Name, self.Version
	err = getJSON(ctx, client, "http://"+address+"/jsz?accounts=1&streams=1&config=1", &r.JetStream)
	return r, err
}

// getJSON reads what a server answers.
func getJSON(ctx context.Context, client *http.Client, url string, into any) error {
	request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxReport))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return nil
}
