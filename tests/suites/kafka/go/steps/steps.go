// Package steps is what the programs for Go have in common: steps are run in order, each says what it saw as a line of JSON.
package steps

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
	"sync"
	"time"
)

const seconds = 100

// T0 is the time of the first record where a step says times.
const T0 = 1700000000000

var saying sync.Mutex

// Say writes one event.
func Say(event ...any) {
	saying.Lock()
	defer saying.Unlock()
	line, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(line, '\n'))
}

// Step is one row of the table; its function shows what it saw, and panics with what went wrong.
type Step struct {
	Name string
	Do   func() any
}

// Must is for what has to work: the step ends with the error.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Until waits for a condition.
func Until(limit int, condition func() bool) {
	end := time.Now().Add(time.Duration(limit) * time.Second)
	for !condition() {
		if time.Now().After(end) {
			panic(errors.New("not within its time"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Run runs the steps; word is what an error is called.
func Run(all []Step, word func(error) string) {
	for _, step := range all {
		if !strings.Contains(step.Name, os.Getenv("MILLRACE_STEP")) {
			continue
		}
		done := make(chan []any, 1)
		go func() {
			defer func() {
				if why := recover(); why != nil {
					fmt.Fprintf(os.Stderr, "%s: %v\n", step.Name, why)
					err, ok := why.(error)
					if !ok {
						err = fmt.Errorf("%v", why)
					}
					done <- []any{"failed", step.Name, word(err)}
				}
			}()
			done <- []any{"seen", step.Name, step.Do()}
		}()
		select {
		case event := <-done:
			Say(event...)
		case <-time.After(seconds * time.Second):
			Say("failed", step.Name, "not within its time")
		}
	}
	Say("end")
}

// Member is the same program again as a member of a group, in a process that can be killed.
type Member struct {
	lock     sync.Mutex
	assigned []int
	records  []string
	process  *exec.Cmd
}

// Start starts one.
func Start(args ...string) *Member {
	m := &Member{process: exec.Command(os.Args[0], append([]string{os.Args[1], "member"}, args...)...)}
	m.process.Stderr = os.Stderr
	out, err := m.process.StdoutPipe()
	Must(err)
	Must(m.process.Start())
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var event []json.RawMessage
			if json.Unmarshal(lines.Bytes(), &event) != nil || len(event) != 2 {
				continue
			}
			m.lock.Lock()
			if string(event[0]) == `"assigned"` {
				m.assigned = nil
				Must(json.Unmarshal(event[1], &m.assigned))
			} else {
				var value string
				Must(json.Unmarshal(event[1], &value))
				m.records = append(m.records, value)
			}
			m.lock.Unlock()
		}
	}()
	return m
}

// Assigned is the partitions that it has.
func (m *Member) Assigned() []int {
	m.lock.Lock()
	defer m.lock.Unlock()
	return append([]int{}, m.assigned...)
}

// Records is what it has seen.
func (m *Member) Records() []string {
	m.lock.Lock()
	defer m.lock.Unlock()
	return append([]string{}, m.records...)
}

// Kill ends it without a word.
func (m *Member) Kill() {
	Must(m.process.Process.Kill())
	m.process.Wait()
}

// Shared: two members share four partitions; one is killed, and the other gets them all.
func Shared(start func() *Member, send func(from, to int)) any {
	a, b := start(), start()
	Until(30, func() bool { return len(a.Assigned()) == 2 && len(b.Assigned()) == 2 })
	send(0, 40)
	Until(30, func() bool { return len(a.Records())+len(b.Records()) >= 40 })
	b.Kill()
	Until(60, func() bool { return len(a.Assigned()) == 4 })
	send(40, 60)
	distinct := func() map[string]bool {
		all := map[string]bool{}
		for _, r := range append(a.Records(), b.Records()...) {
			all[r] = true
		}
		return all
	}
	Until(30, func() bool { return len(distinct()) == 60 })
	a.Kill()
	have := a.Assigned()
	sort.Ints(have)
	return []any{len(distinct()), have}
}

// Digest of a big value.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])[:12]
}

// Text is nil for null.
func Text(data []byte) any {
	if data == nil {
		return nil
	}
	return string(data)
}

// Value and Key of a record.
func Value(i int) []byte {
	if i%7 == 0 {
		return nil
	}
	return []byte(fmt.Sprintf("value %d %s", i, strings.Repeat("x", 10*i)))
}

// Key of a record.
func Key(i int) []byte {
	if i%5 == 0 {
		return nil
	}
	return []byte(fmt.Sprintf("k%d", i))
}
