package main

import (
	"errors"
	"testing"
	"time"
)

// TestPatience has which groups wait for more messages, and that none waits for long.
func TestPatience(t *testing.T) {
	const commit = time.Hour
	settling := &group{}
	for _, tt := range []struct {
		name               string
		size               int // of the open group, in bytes
		messages, expected int
		logged             *group
		commit             time.Duration
		ago                time.Duration // since some were answered
		waits              bool
	}{
		{"one is missing", 100, 4, 5, nil, commit, 0, true},
		{"all came", 100, 5, 5, nil, commit, 0, false},
		{"more came", 100, 9, 5, nil, commit, 0, false},
		{"nobody was answered", 100, 1, 0, nil, commit, 0, false},
		{"all came, others are about to be answered", companySmall - 1, 5, 5, settling, commit, 0, true},
		{"those are not worth it for a larger group", companySmall, 5, 5, settling, commit, 0, false},
		{"it is soon too late", 100, 4, 5, nil, commit, 2*commit - time.Minute, true},
		{"it is too late", 100, 4, 5, nil, commit, 2 * commit, false},
		{"commits are cheap", 100, 4, 5, nil, companyFrom - 1, 0, false},
		{"two of fifteen are missing", companyLarge - 1, 13, 15, nil, commit, 0, true},
		{"one in eight is missing", companyLarge - 1, 14, 16, nil, commit, 0, false},
		{"large enough", companyLarge, 10, 20, nil, commit, 0, false},
	} {
		q := groups{open: newGroup(make([]byte, 0, groupMax)), logged: tt.logged, expected: tt.expected,
			answered: time.Now().Add(-tt.ago)}
		q.open.buf, q.open.messages = q.open.buf[:tt.size], tt.messages
		got := q.patience(tt.commit)
		if (got > 0) != tt.waits || got > companyCommits*tt.commit {
			t.Errorf("%s: got %v, want some: %v, at most %v", tt.name, got, tt.waits, companyCommits*tt.commit)
		}
	}
}

// TestNoCompany: nobody is waited for who could not join, or whose message would be refused.
func TestNoCompany(t *testing.T) {
	q := groups{open: newGroup(nil), logged: &group{}, expected: 2}
	if q.open.messages = 1; !q.lacksCompany() {
		t.Error("one is missing: got no wait, want one")
	}
	q.unwritten = errors.New("no space left")
	if q.lacksCompany() {
		t.Error("the rows of the group before could not be written: got a wait, want none")
	}
	q.logged, q.unwritten = nil, nil
	if q.open.marks = make([]sourceMark, groupMax/maxMark+1); q.lacksCompany() {
		t.Error("the group has no room for another source: got a wait, want none")
	}
}
