// The Go peers: `peers NAME --dir D --tasks N --size B --seconds S` prints one line of JSON.
//
// Each of the three is made for one writer that hands over batches (as raft does), so a collector goroutine turns what
// waits into the next batch: StoreLogs, WriteBatch and Save, each with the library's own sync.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftwal "github.com/hashicorp/raft-wal"
	tidwall "github.com/tidwall/wal"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

const warmUp = 200 * time.Millisecond

// commit returns when the whole batch is durable.
type commit func(batch [][]byte) error

type request struct {
	payload []byte
	done    chan struct{}
}

func main() {
	name := os.Args[1]
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	dir := flags.String("dir", "", "directory")
	tasks := flags.Int("tasks", 1, "appends at once")
	size := flags.Int("size", 256, "payload bytes")
	seconds := flags.Float64("seconds", 1, "how long")
	check(flags.Parse(os.Args[2:]))
	makers := map[string]func(string) (commit, error){"raft-wal": openRaftWAL, "tidwall": openTidwall, "etcd": openEtcd}
	open, known := makers[name]
	if !known {
		check(fmt.Errorf("no such peer: %s", name))
	}
	write, err := open(filepath.Join(*dir, "log"))
	check(err)
	check(json.NewEncoder(os.Stdout).Encode(drive(write, *tasks, *size, time.Duration(*seconds*float64(time.Second)))))
}

func openRaftWAL(dir string) (commit, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	log, err := raftwal.Open(dir)
	if err != nil {
		return nil, err
	}
	index := uint64(0)
	return func(batch [][]byte) error {
		logs := make([]*raft.Log, len(batch))
		for i, payload := range batch {
			index++
			logs[i] = &raft.Log{Index: index, Term: 1, Data: payload}
		}
		return log.StoreLogs(logs)
	}, nil
}

func openTidwall(dir string) (commit, error) {
	options := *tidwall.DefaultOptions // NoSync is false
	options.NoCopy = true
	log, err := tidwall.Open(dir, &options)
	if err != nil {
		return nil, err
	}
	index := uint64(0)
	batch := new(tidwall.Batch)
	return func(payloads [][]byte) error {
		for _, payload := range payloads {
			index++
			batch.Write(index, payload)
		}
		return log.WriteBatch(batch) // empties the batch, too
	}, nil
}

func openEtcd(dir string) (commit, error) {
	log, err := wal.Create(zap.NewNop(), dir, nil)
	if err != nil {
		return nil, err
	}
	index := uint64(0)
	return func(batch [][]byte) error {
		entries := make([]raftpb.Entry, len(batch))
		for i, payload := range batch {
			index++
			entries[i] = raftpb.Entry{Index: index, Term: 1, Data: payload}
		}
		// Save syncs where MustSync says so, which is whenever there are entries.
		return log.Save(raftpb.HardState{Term: 1, Commit: index - uint64(len(batch))}, entries)
	}, nil
}

func drive(write commit, tasks, size int, duration time.Duration) map[string]any {
	durably := direct(write)
	if tasks > 1 {
		durably = collected(write, tasks)
	}
	warm := time.Now().Add(warmUp)
	end := warm.Add(duration)
	taken := make([][]time.Duration, tasks)
	var running sync.WaitGroup
	for task := range taken {
		running.Add(1)
		go func() {
			defer running.Done()
			payload := make([]byte, size)
			for {
				called := time.Now()
				if called.After(end) {
					return
				}
				durably(payload)
				if called.After(warm) {
					taken[task] = append(taken[task], time.Since(called))
				}
			}
		}()
	}
	running.Wait()
	elapsed := time.Since(warm).Seconds()
	var all []time.Duration
	for _, some := range taken {
		all = append(all, some...)
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	at := func(share float64) float64 {
		if len(all) == 0 {
			return 0
		}
		return float64(all[int(float64(len(all))*share)].Nanoseconds()) / 1e3
	}
	return map[string]any{"appends": len(all), "seconds": elapsed, "p50_us": at(0.5), "p99_us": at(0.99)}
}

func direct(write commit) func([]byte) {
	return func(payload []byte) { check(write([][]byte{payload})) }
}

// collected is group commit: what arrives while a batch is written is the next batch.
func collected(write commit, tasks int) func([]byte) {
	queue := make(chan request, tasks)
	go func() {
		for first := range queue {
			waiting := []request{first}
			for more := true; more; {
				select {
				case next := <-queue:
					waiting = append(waiting, next)
				default:
					more = false
				}
			}
			batch := make([][]byte, len(waiting))
			for i, one := range waiting {
				batch[i] = one.payload
			}
			check(write(batch))
			for _, one := range waiting {
				one.done <- struct{}{}
			}
		}
	}()
	channels := sync.Pool{New: func() any { return make(chan struct{}, 1) }}
	return func(payload []byte) {
		done := channels.Get().(chan struct{})
		queue <- request{payload, done}
		<-done
		channels.Put(done)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
