// Program franz is franz-go against the broker at HOST:PORT.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"millrace.test/kafka/steps"
)

var (
	ctx   = context.Background()
	admin *kadm.Client
	must  = steps.Must
)

func word(err error) string {
	var said *kerr.Error
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &said):
		return said.Message
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline"
	}
	return err.Error()
}

func client(options ...kgo.Opt) *kgo.Client {
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(os.Args[1]), kgo.MetadataMinAge(50 * time.Millisecond), kgo.MetadataMaxAge(time.Second),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }), kgo.UnknownTopicRetries(2)}, options...)...)
	must(err)
	return c
}

func made(name string, partitions int32, configs map[string]*string) {
	_, err := admin.CreateTopic(ctx, partitions, 1, configs, name)
	must(err)
	steps.Until(20, func() bool {
		t, err := admin.ListTopics(ctx, name)
		return err == nil && t[name].Err == nil && len(t[name].Partitions) == int(partitions)
	})
}

func send(records []*kgo.Record, options ...kgo.Opt) []any {
	c := client(append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(50 * time.Millisecond)}, options...)...)
	defer c.Close()
	told := map[*kgo.Record]any{} // they come in the order of their answers
	for _, r := range c.ProduceSync(ctx, records...) {
		if r.Err != nil {
			told[r.Record] = word(r.Err)
		} else {
			told[r.Record] = []any{r.Record.Partition, r.Record.Offset}
		}
	}
	out := []any{}
	for _, r := range records {
		out = append(out, told[r])
	}
	return out
}

func values(topic string, values ...string) []*kgo.Record {
	var out []*kgo.Record
	for _, v := range values {
		out = append(out, &kgo.Record{Topic: topic, Value: []byte(v)})
	}
	return out
}

func numbered(topic string, from, to, partitions int) []*kgo.Record {
	var out []*kgo.Record
	for i := from; i < to; i++ {
		out = append(out, &kgo.Record{Topic: topic, Value: []byte(fmt.Sprint(i)), Partition: int32(i % partitions)})
	}
	return out
}

func read(topic string, count int, group string, commit bool, options ...kgo.Opt) []*kgo.Record {
	base := []kgo.Opt{kgo.FetchMaxWait(50 * time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())}
	if group != "" {
		base = append(base, kgo.ConsumerGroup(group), kgo.DisableAutoCommit(), kgo.SessionTimeout(6*time.Second), kgo.ConsumeTopics(topic))
	}
	c := client(append(base, options...)...)
	defer c.Close()
	var out []*kgo.Record
	steps.Until(30, func() bool {
		limited, end := context.WithTimeout(ctx, 200*time.Millisecond)
		defer end()
		fetches := c.PollFetches(limited)
		out = append(out, fetches.Records()...)
		return len(out) >= count
	})
	if commit {
		must(c.CommitUncommittedOffsets(ctx))
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Partition < out[j].Partition || out[i].Partition == out[j].Partition && out[i].Offset < out[j].Offset
	})
	return out
}

func short(records []*kgo.Record) []any {
	out := []any{}
	for _, r := range records {
		out = append(out, []any{r.Offset, steps.Text(r.Value)})
	}
	return out
}

func codec(name string, codec kgo.CompressionCodec) steps.Step {
	return steps.Step{Name: "produce and consume: " + name, Do: func() any {
		topic := "codec-" + name
		made(topic, 2, nil)
		var records []*kgo.Record
		for i := 0; i < 40; i++ {
			records = append(records, &kgo.Record{Topic: topic, Partition: int32(i % 2), Key: steps.Key(i), Value: steps.Value(i),
				Timestamp: time.UnixMilli(steps.T0 + int64(i)*1000),
				Headers:   []kgo.RecordHeader{{Key: "n", Value: []byte(fmt.Sprint(i))}, {Key: "n", Value: []byte{}}, {Key: "null"}}})
		}
		done := send(records, kgo.ProducerBatchCompression(codec))
		seen := []any{}
		for _, r := range read(topic, 40, "read-"+topic, false) {
			headers := []any{}
			for _, h := range r.Headers {
				headers = append(headers, []any{h.Key, steps.Text(h.Value)})
			}
			seen = append(seen, []any{r.Partition, r.Offset, steps.Text(r.Key), steps.Text(r.Value), r.Timestamp.UnixMilli(), headers})
		}
		return []any{done, seen}
	}}
}

func topics() any {
	hour := "3600000"
	made("one", 3, map[string]*string{"retention.ms": &hour})
	create := func(name string, replicas int16, configs map[string]*string) string {
		_, err := admin.CreateTopic(ctx, 1, replicas, configs, name)
		return word(err)
	}
	one, err := admin.ListTopics(ctx, "one", "never")
	must(err)
	parts := []any{}
	for _, p := range one["one"].Partitions.Sorted() {
		parts = append(parts, []any{p.Partition, p.Leader == p.Replicas[0], len(p.ISR), p.LeaderEpoch, word(p.Err)})
	}
	all, err := admin.ListTopics(ctx)
	must(err)
	return []any{create("one", 1, nil), create("bad/name", 1, nil), create("far", 3, nil), create("three", 1, map[string]*string{"nonsense": &hour}), parts,
		word(one["never"].Err), all.Has("one")}
}

func configs() any {
	get := func() []any {
		all, err := admin.DescribeTopicConfigs(ctx, "one")
		must(err)
		out := []any{}
		for _, c := range all[0].Configs {
			if c.Key == "retention.ms" || c.Key == "cleanup.policy" || c.Key == "max.message.bytes" || c.Key == "compression.type" {
				synonyms := []string{}
				for _, s := range c.Synonyms {
					synonyms = append(synonyms, s.Key)
				}
				out = append(out, []any{c.Key, c.MaybeValue(), c.Source.String(), c.Sensitive, synonyms})
			}
		}
		sort.Slice(out, func(i, j int) bool { return fmt.Sprint(out[i]) < fmt.Sprint(out[j]) })
		return out
	}
	set := func(name, value string) string {
		done, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, "one")
		must(err)
		return word(done[0].Err)
	}
	before := get()
	out := []any{before, set("retention.ms", "7200000")}
	steps.Until(20, func() bool { return fmt.Sprint(get()) != fmt.Sprint(before) })
	return append(out, get(), set("retention.ms", "soon"), set("nonsense", "1"))
}

func partitions() any {
	set := func(name string, count int) string {
		done, err := admin.UpdatePartitions(ctx, count, name)
		must(err)
		return word(done[name].Err)
	}
	out := []any{set("one", 5)}
	steps.Until(20, func() bool {
		t, err := admin.ListTopics(ctx, "one")
		return err == nil && len(t["one"].Partitions) == 5
	})
	return append(out, set("one", 2))
}

func deletes() any {
	made("gone", 1, nil)
	first, err := admin.DeleteTopic(ctx, "gone")
	must(err)
	_, err = admin.DeleteTopic(ctx, "never")
	steps.Until(20, func() bool {
		t, err := admin.ListTopics(ctx)
		return err == nil && !t.Has("gone")
	})
	return []any{first.Topic, word(err)}
}

func acks() any {
	made("acks", 1, nil)
	send(values("acks", "a"), kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	send(values("acks", "b"), kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	return short(read("acks", 2, "read-acks", false))
}

func shared(kind string) func() any {
	return func() any {
		name := "shared-" + kind
		made(name, 4, nil)
		return steps.Shared(func() *steps.Member { return steps.Start(name, name, kind) }, func(from, to int) { send(numbered(name, from, to, 4)) })
	}
}

func offsets(group string) any {
	all, err := admin.FetchOffsets(ctx, group)
	must(err)
	out := []any{}
	for _, o := range all.Sorted() {
		if strings.HasPrefix(o.Metadata, "kgo-") {
			o.Metadata = "a member's id"
		}
		out = append(out, []any{o.Topic, o.Partition, o.At, o.LeaderEpoch, o.Metadata})
	}
	return out
}

func resume() any {
	made("resume", 1, nil)
	send(numbered("resume", 0, 10, 1))
	read("resume", 10, "resume-group", true)
	send(values("resume", "after"))
	return []any{short(read("resume", 1, "resume-group", true)), len(offsets("resume-group").([]any))}
}

func groups() any {
	described := func(group string) []any {
		all, err := admin.DescribeGroups(ctx, group)
		must(err)
		g := all[group]
		return []any{g.Group, g.State, g.ProtocolType, g.Protocol, len(g.Members), word(g.Err)}
	}
	steps.Until(20, func() bool { return described("resume-group")[1] == "Empty" })
	set := kadm.Offsets{}
	set.Add(kadm.Offset{Topic: "resume", Partition: 0, At: 4, LeaderEpoch: -1, Metadata: "said so"})
	must(admin.CommitAllOffsets(ctx, "resume-group", set))
	listed, err := admin.ListGroups(ctx)
	must(err)
	l := listed["resume-group"]
	out := []any{described("resume-group"), described("no-such"), offsets("resume-group"), []any{l.State, l.ProtocolType, l.GroupType}}
	which := kadm.TopicsSet{}
	which.Add("resume", 0)
	removed, err := admin.DeleteOffsets(ctx, "resume-group", which)
	must(err)
	_, first := admin.DeleteGroup(ctx, "resume-group")
	_, second := admin.DeleteGroup(ctx, "no-such")
	return append(out, word(removed["resume"][0]), word(first), word(second))
}

func seek() any {
	made("seek", 1, nil)
	records := numbered("seek", 0, 10, 1)
	for i, r := range records {
		r.Timestamp = time.UnixMilli(steps.T0 + int64(i)*1000)
	}
	send(records)
	out := []any{}
	say := func(l kadm.ListedOffsets, err error) {
		must(err)
		o := l["seek"][0]
		out = append(out, []any{o.Offset, o.Timestamp, o.LeaderEpoch, word(o.Err)})
	}
	for _, t := range []int64{1600000000000, steps.T0 + 4500, steps.T0 + 9000, 1800000000000} {
		say(admin.ListOffsetsAfterMilli(ctx, t, "seek"))
	}
	say(admin.ListStartOffsets(ctx, "seek"))
	say(admin.ListEndOffsets(ctx, "seek"))
	say(admin.ListCommittedOffsets(ctx, "seek"))
	say(admin.ListMaxTimestampOffsets(ctx, "seek"))
	say(admin.ListLocalLogStartOffsets(ctx, "seek"))
	at := map[string]map[int32]kgo.Offset{"seek": {0: kgo.NewOffset().AfterMilli(steps.T0 + 4500)}}
	return []any{out, short(read("seek", 5, "", false, kgo.ConsumePartitions(at)))}
}

func deleteRecords() any {
	to := func(at int64) any {
		o := kadm.Offsets{}
		o.Add(kadm.Offset{Topic: "seek", Partition: 0, At: at})
		done, err := admin.DeleteRecords(ctx, o)
		must(err)
		return []any{done["seek"][0].LowWatermark, word(done["seek"][0].Err)}
	}
	return []any{to(3), to(99), short(read("seek", 7, "after-delete", false))}
}

func idempotent() any {
	made("numbered", 1, nil)
	return []any{send(numbered("numbered", 0, 200, 1), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(10)), short(read("numbered", 200, "read-numbered", false))}
}

func transactions() any {
	made("txn", 1, nil)
	made("txn-in", 1, nil)
	send(numbered("txn-in", 0, 5, 1))
	c := client(kgo.TransactionalID("txn-id"), kgo.DefaultProduceTopic("txn"))
	one := func(end kgo.TransactionEndTry, values ...string) error {
		must(c.BeginTransaction())
		for _, v := range values {
			must(c.ProduceSync(ctx, &kgo.Record{Value: []byte(v)}).FirstErr())
		}
		return c.EndTransaction(ctx, end)
	}
	must(one(kgo.TryCommit, "kept 1", "kept 2"))
	must(one(kgo.TryAbort, "dropped"))
	must(one(kgo.TryCommit, "kept 3"))
	c.Close()
	session, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(os.Args[1]), kgo.TransactionalID("txn-session"), kgo.ConsumerGroup("txn-group"),
		kgo.ConsumeTopics("txn-in"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RequireStableFetchOffsets())
	must(err)
	copied := 0
	for copied < 5 {
		fetches := session.PollFetches(ctx)
		must(session.Begin())
		fetches.EachRecord(func(r *kgo.Record) {
			copied++
			session.Produce(ctx, &kgo.Record{Topic: "txn", Value: append([]byte("copy of "), r.Value...)}, nil)
		})
		committed, err := session.End(ctx, kgo.TryCommit)
		must(err)
		if !committed {
			panic("not committed")
		}
	}
	session.Close()
	described, err := admin.DescribeTransactions(ctx, "txn-id")
	must(err)
	d := described["txn-id"]
	only := func(options ...kgo.Opt) []any {
		out := []any{}
		for _, r := range read("txn", 8, "", false, append(options, kgo.ConsumeTopics("txn"))...) {
			out = append(out, string(r.Value))
		}
		return out
	}
	return []any{only(kgo.FetchIsolationLevel(kgo.ReadCommitted())), len(only()), offsets("txn-group"), d.State, word(d.Err)}
}

func big() any {
	made("big", 1, nil)
	one := func(size int, fill string, options ...kgo.Opt) any {
		return send(values("big", strings.Repeat(fill, size)), append(options, kgo.ProducerBatchMaxBytes(8000000))...)
	}
	out := []any{one(1000000, "y", kgo.ProducerBatchCompression(kgo.NoCompression())), one(5000000, "z", kgo.ProducerBatchCompression(kgo.GzipCompression())),
		one(2000000, "x", kgo.ProducerBatchCompression(kgo.NoCompression()))}
	for _, r := range read("big", 2, "read-big", false, kgo.FetchMaxPartitionBytes(1000)) {
		out = append(out, []any{r.Offset, steps.Digest(r.Value)})
	}
	return out
}

func unknown() any {
	offsets, err := admin.ListEndOffsets(ctx, "never")
	listed := word(err)
	for _, o := range offsets["never"] {
		listed = word(o.Err)
	}
	return []any{send(values("never", "x")), send([]*kgo.Record{{Topic: "one", Partition: 77, Value: []byte("x")}}), listed}
}

func cut() any {
	made("cut", 1, nil)
	c := client(kgo.DefaultProduceTopic("cut"))
	defer c.Close()
	var wait sync.WaitGroup
	told := make([]any, 100)
	for i := range told {
		if i%25 == 10 {
			steps.Say("cut")
		}
		wait.Add(1)
		c.Produce(ctx, &kgo.Record{Value: []byte(fmt.Sprint(i))}, func(r *kgo.Record, err error) {
			told[i] = []any{r.Offset, word(err)}
			wait.Done()
		})
		if i%5 == 0 {
			wait.Wait()
		}
	}
	wait.Wait()
	return []any{told, short(read("cut", 100, "read-cut", false))}
}

func cluster() any {
	m, err := admin.BrokerMetadata(ctx)
	must(err)
	versions, err := admin.ApiVersions(ctx)
	must(err)
	return []any{len(m.Brokers), m.Brokers[0].Host, m.Controller == m.Brokers[0].NodeID, len(versions)}
}

func member(group, topic, kind string) {
	have := map[int32]bool{}
	var lock sync.Mutex
	tell := func(change map[string][]int32, add bool) {
		lock.Lock()
		defer lock.Unlock()
		for _, p := range change[topic] {
			if add {
				have[p] = true
			} else {
				delete(have, p)
			}
		}
		now := []int{}
		for p := range have {
			now = append(now, int(p))
		}
		sort.Ints(now)
		steps.Say("assigned", now)
	}
	options := []kgo.Opt{kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(200 * time.Millisecond),
		kgo.FetchMaxWait(50 * time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.AutoCommitInterval(100 * time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, change map[string][]int32) { tell(change, true) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, change map[string][]int32) { tell(change, false) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, change map[string][]int32) { tell(change, false) })}
	if kind == "range" {
		options = append(options, kgo.Balancers(kgo.RangeBalancer()))
	}
	c := client(options...)
	for {
		c.PollFetches(ctx).EachRecord(func(r *kgo.Record) { steps.Say("record", string(r.Value)) })
	}
}

func main() {
	if len(os.Args) > 2 {
		member(os.Args[3], os.Args[4], os.Args[5])
	}
	admin = kadm.NewClient(client())
	steps.Run([]steps.Step{{Name: "topics: create, describe, list", Do: topics}, {Name: "configs: describe, alter", Do: configs},
		{Name: "partitions: more, and none fewer", Do: partitions}, {Name: "topics: delete", Do: deletes},
		codec("plain", kgo.NoCompression()), codec("gzip", kgo.GzipCompression()), codec("snappy", kgo.SnappyCompression()),
		codec("lz4", kgo.Lz4Compression()), codec("zstd", kgo.ZstdCompression()),
		{Name: "acks 0 and 1", Do: acks}, {Name: "groups: shared, one is killed", Do: shared("range")},
		{Name: "groups: cooperative, one is killed", Do: shared("cooperative")}, {Name: "groups: commit and resume", Do: resume},
		{Name: "groups: describe, list, offsets, delete", Do: groups}, {Name: "seek: by offset and time", Do: seek},
		{Name: "records: deleted to an offset", Do: deleteRecords}, {Name: "idempotent producer", Do: idempotent},
		{Name: "transactions: commit, abort, offsets", Do: transactions}, {Name: "big messages", Do: big},
		{Name: "unknown topics and partitions", Do: unknown}, {Name: "connections cut", Do: cut}, {Name: "cluster", Do: cluster}}, word)
}
