import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Properties;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.LongStream;

import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.FeatureMetadata;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListConfigResourcesOptions;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ListTransactionsOptions;
import org.apache.kafka.clients.admin.LogDirDescription;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.ShareGroupDescription;
import org.apache.kafka.clients.admin.SharePartitionOffsetInfo;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.admin.TransactionDescription;
import org.apache.kafka.clients.admin.TransactionListing;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.admin.UserScramCredentialAlteration;
import org.apache.kafka.clients.admin.UserScramCredentialDeletion;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.consumer.NoOffsetForPartitionException;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.ShareConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.ClassicGroupState;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ElectionNotNeededException;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.InvalidRegularExpression;
import org.apache.kafka.common.errors.InvalidReplicaAssignmentException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.InvalidTxnStateException;
import org.apache.kafka.common.errors.NoReassignmentInProgressException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.ResourceNotFoundException;
import org.apache.kafka.common.errors.SecurityDisabledException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.TransactionalIdNotFoundException;
import org.apache.kafka.common.errors.UnknownMemberIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.common.utils.AppInfoParser;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.ReadOnlyKeyValueStore;

/**
 * A broker through Apache Kafka's own Java clients: producer, consumer, admin, transactions, Streams.
 *
 *     java -cp 'JARS/*' Clients.java HOST:PORT FOLDER [TEXT]
 *
 * One line a check, `ok NAME` or `FAIL NAME: why`; the last one is `N passed, N failed`. TEXT keeps the checks whose name has it.
 * What is expected is what Apache Kafka does: the same program passes against it. The broker is thought to be new and empty.
 * FOLDER is for what Streams keeps. Nothing waits for a length of time, only for what it expects, and no longer than a minute.
 */
public class Clients {
    static final Duration POLL = Duration.ofMillis(50);
    static final long LONGEST_S = 60;
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    static final Map<String, Object> CLASSIC = Map.of("group.protocol", "classic");
    static final Map<String, Object> COOPERATIVE =
        Map.of("group.protocol", "classic", "partition.assignment.strategy", CooperativeStickyAssignor.class.getName());
    static final Map<String, Object> CONSUMER = Map.of("group.protocol", "consumer");
    static final Map<String, Object> CONSUMER_RANGE = Map.of("group.protocol", "consumer", "group.remote.assignor", "range");

    static String server;
    static Path folder;
    static String only = "";
    static Admin admin;
    static int passed, failed, names;
    static final BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));

    // ------------------------------------------------------------------------------------------------------- checking
    interface Body {
        void run() throws Exception;
    }

    static void check(String name, Body body) {
        if (!name.contains(only))
            return;
        FutureTask<Void> task = new FutureTask<>(() -> {
            body.run();
            return null;
        });
        Thread thread = new Thread(task, name);
        thread.setDaemon(true);
        thread.start();
        String why = null;
        try {
            task.get(3 * LONGEST_S, TimeUnit.SECONDS);
        } catch (ExecutionException e) {
            why = told(e.getCause());
        } catch (TimeoutException e) {
            why = "hangs at " + Arrays.stream(thread.getStackTrace()).filter(f -> f.getClassName().startsWith("Clients"))
                .map(f -> "line " + f.getLineNumber()).collect(Collectors.joining(" < "));
            thread.interrupt();
        } catch (InterruptedException e) {
            why = "interrupted";
        }
        System.out.println(why == null ? "ok " + name : "FAIL " + name + ": " + why.replaceAll("\\s*\\n\\s*", " "));
        if (why == null)
            passed++;
        else
            failed++;
    }

    static String told(Throwable e) {
        String at = Arrays.stream(e.getStackTrace()).filter(f -> f.getClassName().startsWith("Clients"))
            .map(f -> " (line " + f.getLineNumber() + ")").findFirst().orElse("");
        String cause = e.getCause() == null ? "" : " <- " + told(e.getCause());
        return (e instanceof AssertionError ? "" : e.getClass().getSimpleName() + ": ") + e.getMessage() + at + cause;
    }

    static void equal(String what, Object expected, Object is) {
        if (!Objects.equals(expected, is))
            throw new AssertionError(what + ": expected " + brief(expected) + ", is " + brief(is));
    }

    static String brief(Object o) {
        String text = String.valueOf(o);
        return text.length() <= 300 ? text : text.substring(0, 300) + "...";
    }

    static void yes(String what, boolean is) {
        if (!is)
            throw new AssertionError("not so: " + what);
    }

    /** Asks again until it is so.  Of two members both have to poll each time, so their conditions are joined with & and not &&. */
    static void until(String what, Callable<Boolean> condition) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(LONGEST_S);
        while (!condition.call()) {
            if (System.nanoTime() > end)
                throw new AssertionError("not within " + LONGEST_S + " s: " + what);
            Thread.sleep(5);
        }
    }

    /** What a future fails with. */
    @SafeVarargs
    static Throwable fails(String what, Callable<?> call, Class<? extends Throwable>... wanted) throws Exception {
        try {
            Object result = call.call();
            if (result instanceof Future)
                ((Future<?>) result).get(LONGEST_S, TimeUnit.SECONDS);
        } catch (ExecutionException | KafkaException e) {
            Throwable cause = e instanceof ExecutionException ? e.getCause() : e;
            for (Class<? extends Throwable> one : wanted)
                for (Throwable t = cause; t != null; t = t.getCause())
                    if (one.isInstance(t))
                        return t;
            throw new AssertionError(what + ": expected " + wanted[0].getSimpleName() + ", is " + told(cause));
        }
        throw new AssertionError(what + ": expected " + wanted[0].getSimpleName() + ", succeeded");
    }

    // ------------------------------------------------------------------------------------------------- clients, topics
    static Map<String, Object> config(Map<String, Object> more) {
        Map<String, Object> all = new HashMap<>(Map.of("bootstrap.servers", server));
        all.putAll(more);
        return all;
    }

    static Producer<String, String> producer(Map<String, Object> more) {
        return new KafkaProducer<>(config(more), new StringSerializer(), new StringSerializer());
    }

    static Producer<String, String> transactional(String id) {
        Producer<String, String> p = producer(Map.of("transactional.id", id));
        p.initTransactions();
        return p;
    }

    static Consumer<String, String> consumer(Map<String, Object> more) {
        Map<String, Object> all = config(Map.of("auto.offset.reset", "earliest", "auto.commit.interval.ms", 100));
        all.putAll(more);
        return new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    static Consumer<String, String> member(String group, Map<String, Object> how, Object... more) {
        Map<String, Object> all = new HashMap<>(how);
        all.put("group.id", group);
        for (int i = 0; i < more.length; i += 2)
            all.put((String) more[i], more[i + 1]);
        return consumer(all);
    }

    static String name(String kind) {
        return "java-" + kind + "-" + ++names;
    }

    static String topic(int partitions, String... configs) throws Exception {
        String name = name("topic");
        Map<String, String> map = new HashMap<>();
        for (int i = 0; i < configs.length; i += 2)
            map.put(configs[i], configs[i + 1]);
        admin.createTopics(List.of(new NewTopic(name, Optional.of(partitions), Optional.empty()).configs(map))).all().get();
        until("the topic is in the metadata",
            () -> admin.listTopics().names().get().contains(name) && described(name).partitions().size() == partitions);
        return name;
    }

    static TopicDescription described(String topic) throws Exception {
        return admin.describeTopics(List.of(topic)).topicNameValues().get(topic).get();
    }

    static List<TopicPartition> partitions(String topic) throws Exception {
        return described(topic).partitions().stream().map(p -> new TopicPartition(topic, p.partition())).toList();
    }

    static void write(String topic, int from, int to) throws Exception {
        try (Producer<String, String> p = producer(Map.of())) {
            send(p, topic, from, to);
            p.flush();
        }
    }

    /** Records `from` to `to`, spread evenly over four partitions or fewer; the value is the number. */
    static List<Future<RecordMetadata>> send(Producer<String, String> p, String topic, int from, int to) {
        int width = p.partitionsFor(topic).size();
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int i = from; i < to; i++)
            sent.add(p.send(new ProducerRecord<>(topic, i % width, "k" + i, "" + i)));
        return sent;
    }

    static List<String> numbers(int from, int to) {
        return IntStream.range(from, to).mapToObj(i -> "" + i).toList();
    }

    /** All that is readable now. */
    static List<ConsumerRecord<String, String>> all(String topic, String isolation) throws Exception {
        List<ConsumerRecord<String, String>> got = new ArrayList<>();
        List<TopicPartition> parts = partitions(topic);
        try (Consumer<String, String> c = consumer(Map.of("isolation.level", isolation))) {
            c.assign(parts);
            c.seekToBeginning(parts);
            Map<TopicPartition, Long> ends = c.endOffsets(parts);
            until("all is read to " + ends, () -> {
                c.poll(POLL).forEach(got::add);
                return parts.stream().allMatch(p -> c.position(p) >= ends.get(p));
            });
        }
        return got;
    }

    static List<String> values(String topic, String isolation) throws Exception {
        return all(topic, isolation).stream().map(ConsumerRecord::value).toList();
    }

    static List<String> sorted(Collection<String> values) {
        return values.stream().sorted(Comparator.comparingInt(Integer::parseInt)).toList();
    }

    // ------------------------------------------------------------------------------------------------------- producers
    static void producers() {
        for (String codec : CODECS)
            check("producer " + codec, () -> compressed(codec));
        check("producer compressed topics are smaller", Clients::smaller);
        check("producer order of 20000 records in 4 partitions", Clients::order);
        check("producer acks=0 and acks=1 without idempotence", Clients::acks);
        check("producer record of 900 KB, and one too large", Clients::large);
        check("producer unknown topic is created", Clients::created);
    }

    static void compressed(String codec) throws Exception {
        String topic = topic(1);
        List<RecordMetadata> told = new ArrayList<>();
        try (Producer<String, String> p = producer(Map.of("compression.type", codec, "linger.ms", 20))) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < 200; i++) {
                ProducerRecord<String, String> r = new ProducerRecord<>(topic, null, 1700000000000L + i, i % 3 == 0 ? null : "k" + i,
                    i % 7 == 0 ? null : i + " value".repeat(50));
                r.headers().add("one", ("h" + i).getBytes(StandardCharsets.UTF_8)).add("one", new byte[0]).add("none", null);
                sent.add(p.send(r));
            }
            for (Future<RecordMetadata> f : sent)
                told.add(f.get());
        }
        List<ConsumerRecord<String, String>> got = all(topic, "read_uncommitted");
        equal("count", 200, got.size());
        for (int i = 0; i < 200; i++) {
            ConsumerRecord<String, String> r = got.get(i);
            equal("offset told", (long) i, told.get(i).offset());
            equal("offset", (long) i, r.offset());
            equal("key", i % 3 == 0 ? null : "k" + i, r.key());
            equal("value", i % 7 == 0 ? null : i + " value".repeat(50), r.value());
            equal("time", 1700000000000L + i, r.timestamp());
            equal("headers", List.of(new RecordHeader("one", ("h" + i).getBytes(StandardCharsets.UTF_8)),
                new RecordHeader("one", new byte[0]), new RecordHeader("none", (byte[]) null)), Arrays.asList(r.headers().toArray()));
        }
    }

    static void smaller() throws Exception {
        Map<String, Long> sizes = new HashMap<>();
        for (String codec : CODECS) {
            String topic = topic(1);
            try (Producer<String, String> p = producer(Map.of("compression.type", codec, "linger.ms", 20))) {
                for (int i = 0; i < 200; i++)
                    p.send(new ProducerRecord<>(topic, "a value that is said again ".repeat(40)));
            }
            sizes.put(codec, size(topic));
        }
        for (String codec : CODECS)
            yes(codec + " is smaller: " + sizes, codec.equals("none") || sizes.get(codec) * 4 < sizes.get("none"));
    }

    static long size(String topic) throws Exception {
        int id = admin.describeCluster().nodes().get().iterator().next().id();
        long bytes = 0;
        for (LogDirDescription dir : admin.describeLogDirs(List.of(id)).descriptions().get(id).get().values())
            for (var e : dir.replicaInfos().entrySet())
                bytes += e.getKey().topic().equals(topic) ? e.getValue().size() : 0;
        return bytes;
    }

    static void order() throws Exception {
        String topic = topic(4);
        try (Producer<String, String> p = producer(Map.of("batch.size", 2000, "max.in.flight.requests.per.connection", 5))) {
            for (Future<RecordMetadata> f : send(p, topic, 0, 20000))
                f.get();
        }
        Map<Integer, List<String>> got = new TreeMap<>();
        for (ConsumerRecord<String, String> r : all(topic, "read_uncommitted"))
            got.computeIfAbsent(r.partition(), p -> new ArrayList<>()).add(r.value());
        for (int part = 0; part < 4; part++) {
            int first = part;
            equal("partition " + part, IntStream.range(0, 5000).mapToObj(i -> "" + (4 * i + first)).toList(), got.get(part));
        }
    }

    static void acks() throws Exception {
        for (String acks : List.of("0", "1")) {
            String topic = topic(1);
            try (Producer<String, String> p = producer(Map.of("acks", acks, "enable.idempotence", false))) {
                List<Future<RecordMetadata>> sent = send(p, topic, 0, 100);
                equal("offset told", acks.equals("0") ? -1L : 99L, sent.get(99).get().offset());
            }
            until("all 100 are there", () -> all(topic, "read_uncommitted").size() == 100);
            equal("values", numbers(0, 100), values(topic, "read_uncommitted"));
        }
    }

    static void large() throws Exception {
        String topic = topic(1);
        char[] noise = new char[900000];
        Random random = new Random(1);
        for (int i = 0; i < noise.length; i++)
            noise[i] = (char) ('!' + random.nextInt(90));
        String value = new String(noise);
        try (Producer<String, String> p = producer(Map.of("max.request.size", 8 << 20, "buffer.memory", 16 << 20))) {
            p.send(new ProducerRecord<>(topic, value)).get();
            fails("above max.message.bytes", () -> p.send(new ProducerRecord<>(topic, value + value)), RecordTooLargeException.class);
            p.send(new ProducerRecord<>(topic, "after")).get();
        }
        equal("values", List.of(value, "after"), values(topic, "read_uncommitted"));
    }

    static void created() throws Exception {
        String topic = name("topic");
        try (Producer<String, String> p = producer(Map.of())) {
            equal("offset", 0L, p.send(new ProducerRecord<>(topic, "first")).get().offset());
        }
        equal("values", List.of("first"), values(topic, "read_uncommitted"));
        try (Producer<String, String> p = producer(Map.of("max.block.ms", 3000))) {
            fails("a name that is none", () -> p.send(new ProducerRecord<>("no topic!", "x")), InvalidTopicException.class);
        }
    }

    // ------------------------------------------------------------------------------------------------------- consumers
    static void consumers() {
        check("group classic, range", () -> rebalanced(CLASSIC));
        check("group classic, cooperative", () -> rebalanced(COOPERATIVE));
        check("group consumer (KIP-848), uniform", () -> rebalanced(CONSUMER));
        check("group consumer (KIP-848), range", () -> rebalanced(CONSUMER_RANGE));
        check("group classic, static member comes back", () -> comesBack(CLASSIC));
        check("group consumer (KIP-848), static member comes back", () -> comesBack(CONSUMER));
        check("group classic, commit and resume", () -> resumed(CLASSIC));
        check("group consumer (KIP-848), commit and resume", () -> resumed(CONSUMER));
        check("group classic, pattern of the client", () -> pattern(CLASSIC, false));
        check("group consumer (KIP-848), pattern of the client", () -> pattern(CONSUMER, false));
        check("group consumer (KIP-848), pattern of the broker", () -> pattern(CONSUMER, true));
        check("group from classic to consumer (KIP-848) and back", Clients::migrated);
        check("consumer seek by time", Clients::byTime);
        check("consumer where to begin: earliest, latest, none, by duration", Clients::begin);
        check("consumer offsets of the begin, the end and the position", Clients::edges);
        check("consumer small fetches of large partitions", Clients::smallFetches);
    }

    /** One member, two, one again, with records in between: each is seen once, and the commits are at the end. */
    static void rebalanced(Map<String, Object> how) throws Exception {
        String topic = topic(4), group = name("group");
        List<String> got = new ArrayList<>();
        Consumer<String, String> b = member(group, how);
        try (Consumer<String, String> a = member(group, how)) {
            a.subscribe(List.of(topic));
            until("the only member has all", () -> takes(a, got).assignment().size() == 4);
            write(topic, 0, 400);
            until("400 came", () -> takes(a, got) != null && got.size() >= 400);
            b.subscribe(List.of(topic));
            until("both have two", () -> takes(a, got).assignment().size() == 2 & takes(b, got).assignment().size() == 2);
            Set<TopicPartition> both = new HashSet<>(a.assignment());
            both.addAll(b.assignment());
            equal("partitions of both", new HashSet<>(partitions(topic)), both);
            write(topic, 400, 800);
            until("800 came", () -> takes(a, got) != null && takes(b, got) != null && got.size() >= 800);
            ConsumerGroupDescription told = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
            equal("members told", 2, told.members().size());
            equal("state told", GroupState.STABLE, told.groupState());
            b.close();
            until("the one left has all", () -> takes(a, got).assignment().size() == 4);
            write(topic, 800, 1200);
            until("1200 came", () -> takes(a, got) != null && got.size() >= 1200);
        } finally {
            b.close();
        }
        equal("each once", numbers(0, 1200), sorted(got));
        Map<TopicPartition, OffsetAndMetadata> commits = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        for (TopicPartition p : partitions(topic))
            equal("commit of " + p, 300L, commits.get(p).offset());
    }

    static Consumer<String, String> takes(Consumer<String, String> c, List<String> got) {
        c.poll(POLL).forEach(r -> got.add(r.value()));
        return c;
    }

    /** A static member that goes and comes back gets what it had, and its neighbour keeps what it has. */
    static void comesBack(Map<String, Object> how) throws Exception {
        String topic = topic(4), group = name("group");
        List<String> got = new ArrayList<>();
        List<TopicPartition> lost = new ArrayList<>();
        try (Consumer<String, String> stays = member(group, how, "group.instance.id", "stays")) {
            stays.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    lost.addAll(partitions);
                }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                }
            });
            Set<TopicPartition> had;
            int generation;
            try (Consumer<String, String> goes = member(group, how, "group.instance.id", "goes")) {
                goes.subscribe(List.of(topic));
                until("both have two", () -> takes(stays, got).assignment().size() == 2 & takes(goes, got).assignment().size() == 2);
                had = Set.copyOf(goes.assignment());
                generation = goes.groupMetadata().generationId();
            }
            lost.clear();
            try (Consumer<String, String> back = member(group, how, "group.instance.id", "goes")) {
                back.subscribe(List.of(topic));
                until("it has what it had", () -> takes(stays, got) != null && takes(back, got).assignment().equals(had));
                equal("generation", generation, back.groupMetadata().generationId());
            }
            equal("what the neighbour lost", List.of(), lost);
        }
        admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions(
            List.of(new MemberToRemove("stays"), new MemberToRemove("goes")))).all().get();
        equal("state told", GroupState.EMPTY, admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupState());
    }

    static void resumed(Map<String, Object> how) throws Exception {
        String topic = topic(1), group = name("group");
        TopicPartition part = new TopicPartition(topic, 0);
        write(topic, 0, 100);
        List<String> got = new ArrayList<>();
        try (Consumer<String, String> c = member(group, how, "enable.auto.commit", false, "max.poll.records", 10)) {
            c.subscribe(List.of(topic));
            until("some came", () -> takes(c, got) != null && got.size() >= 30);
            c.commitSync(Map.of(part, new OffsetAndMetadata(30, Optional.of(0), "a note")));
            equal("committed", new OffsetAndMetadata(30, Optional.of(0), "a note"), c.committed(Set.of(part)).get(part));
            FutureTask<Void> done = new FutureTask<>(() -> null);
            c.commitAsync(Map.of(part, new OffsetAndMetadata(25)), (offsets, why) -> done.run());
            until("the commit is answered", () -> takes(c, new ArrayList<>()) != null && done.isDone());
        }
        got.clear();
        try (Consumer<String, String> c = member(group, how)) {
            c.subscribe(List.of(topic));
            until("the rest came", () -> takes(c, got) != null && got.size() >= 75);
        }
        equal("the rest", numbers(25, 100), got);
    }

    static void pattern(Map<String, Object> how, boolean brokers) throws Exception {
        String prefix = name("pattern"), group = name("group");
        admin.createTopics(List.of(new NewTopic(prefix + "-a", 1, (short) 1), new NewTopic(prefix + "x", 1, (short) 1))).all().get();
        Set<TopicPartition> first = Set.of(new TopicPartition(prefix + "-a", 0));
        Set<TopicPartition> both = Set.of(new TopicPartition(prefix + "-a", 0), new TopicPartition(prefix + "-b", 0));
        try (Consumer<String, String> c = member(group, how, "metadata.max.age.ms", 500)) {
            if (brokers)
                c.subscribe(new SubscriptionPattern(prefix + "-[a-z]"));
            else
                c.subscribe(Pattern.compile(prefix + "-[a-z]"));
            until("it has the topic", () -> takes(c, new ArrayList<>()).assignment().equals(first));
            admin.createTopics(List.of(new NewTopic(prefix + "-b", 1, (short) 1))).all().get();
            until("it has the new topic too", () -> takes(c, new ArrayList<>()).assignment().equals(both));
        }
    }

    /** An empty group changes its protocol with the next member, and keeps its offsets. */
    static void migrated() throws Exception {
        String topic = topic(1), group = name("group");
        for (Map<String, Object> how : List.of(CLASSIC, CONSUMER, CLASSIC)) {
            int from = (int) admin.listOffsets(Map.of(new TopicPartition(topic, 0), OffsetSpec.latest())).all().get()
                .get(new TopicPartition(topic, 0)).offset();
            write(topic, from, from + 10);
            List<String> got = new ArrayList<>();
            try (Consumer<String, String> c = member(group, how)) {
                c.subscribe(List.of(topic));
                until("ten came", () -> takes(c, got) != null && got.size() >= 10);
                equal("type", how == CONSUMER ? GroupType.CONSUMER : GroupType.CLASSIC,
                    admin.describeConsumerGroups(List.of(group)).all().get().get(group).type());
            }
            equal("what came", numbers(from, from + 10), got);
        }
    }

    static void byTime() throws Exception {
        String topic = topic(2);
        try (Producer<String, String> p = producer(Map.of("batch.size", 1000))) {
            for (int i = 0; i < 200; i++)
                p.send(new ProducerRecord<>(topic, i % 2, 1700000000000L + 10L * i, null, "" + i));
        }
        TopicPartition even = new TopicPartition(topic, 0), odd = new TopicPartition(topic, 1);
        try (Consumer<String, String> c = consumer(Map.of())) {
            c.assign(List.of(even, odd));
            Map<TopicPartition, OffsetAndTimestamp> at = c.offsetsForTimes(Map.of(even, 1700000001000L, odd, 1700000001001L));
            equal("offset of the even", 50L, at.get(even).offset());
            equal("time of the even", 1700000001000L, at.get(even).timestamp());
            equal("offset of the odd", 50L, at.get(odd).offset());
            equal("time of the odd", 1700000001010L, at.get(odd).timestamp());
            equal("later than all", null, c.offsetsForTimes(Map.of(even, 1800000000000L)).get(even));
            equal("earlier than all", 0L, c.offsetsForTimes(Map.of(even, 0L)).get(even).offset());
            at.forEach((part, offset) -> c.seek(part, offset.offset()));
            List<String> got = new ArrayList<>();
            until("100 came", () -> takes(c, got) != null && got.size() >= 100);
            equal("from there on", numbers(100, 200), sorted(got));
        }
    }

    static void begin() throws Exception {
        String topic = topic(1);
        TopicPartition part = new TopicPartition(topic, 0);
        try (Producer<String, String> p = producer(Map.of())) {
            p.send(new ProducerRecord<>(topic, 0, System.currentTimeMillis() - 7200_000, null, "old")).get();
            p.send(new ProducerRecord<>(topic, 0, System.currentTimeMillis(), null, "new")).get();
        }
        Map<String, Long> expected = Map.of("earliest", 0L, "latest", 2L, "by_duration:PT1H", 1L, "by_duration:PT3H", 0L);
        for (var e : expected.entrySet())
            try (Consumer<String, String> c = consumer(Map.of("auto.offset.reset", e.getKey()))) {
                c.assign(List.of(part));
                equal(e.getKey(), e.getValue(), c.position(part));
            }
        try (Consumer<String, String> c = consumer(Map.of("auto.offset.reset", "none"))) {
            c.assign(List.of(part));
            fails("none", () -> c.position(part), NoOffsetForPartitionException.class);
        }
    }

    static void edges() throws Exception {
        String topic = topic(1);
        TopicPartition part = new TopicPartition(topic, 0);
        write(topic, 0, 10);
        try (Consumer<String, String> c = consumer(Map.of())) {
            equal("partitions", 1, c.partitionsFor(topic).size());
            yes("listed", c.listTopics().containsKey(topic));
            equal("begin", 0L, c.beginningOffsets(List.of(part)).get(part));
            equal("end", 10L, c.endOffsets(List.of(part)).get(part));
            c.assign(List.of(part));
            c.seek(part, 7);
            List<String> got = new ArrayList<>();
            until("three came", () -> takes(c, got) != null && got.size() >= 3);
            equal("values", numbers(7, 10), got);
            equal("position", 10L, c.position(part));
            until("the lag is known", () -> takes(c, got) != null && c.currentLag(part).equals(OptionalLong.of(0)));
            c.seek(part, 1000); // beyond the end: reset to the earliest
            until("ten came again", () -> takes(c, got) != null && got.size() >= 13);
        }
    }

    static void smallFetches() throws Exception {
        String topic = topic(3);
        try (Producer<String, String> p = producer(Map.of("batch.size", 30000))) {
            for (int i = 0; i < 3000; i++)
                p.send(new ProducerRecord<>(topic, i % 3, null, i + " " + "x".repeat(1000)));
        }
        List<String> got = new ArrayList<>();
        try (Consumer<String, String> c = consumer(Map.of("fetch.max.bytes", 50000, "max.partition.fetch.bytes", 5000,
            "fetch.min.bytes", 10000, "check.crcs", true))) {
            c.assign(partitions(topic));
            until("all came", () -> takes(c, got) != null && got.size() >= 3000);
        }
        equal("each once", numbers(0, 3000), sorted(got.stream().map(v -> v.substring(0, v.indexOf(' '))).toList()));
    }

    // ----------------------------------------------------------------------------------------------------------- admin
    static void admins() {
        check("admin describeCluster", Clients::cluster);
        check("admin describeFeatures", Clients::features);
        check("admin create, describe, list and delete topics", Clients::topics);
        check("admin topics that cannot be", Clients::badTopics);
        check("admin createPartitions", Clients::grow);
        check("admin describeMetadataQuorum", Clients::quorum);
        check("admin elections, reassignments, quotas: there is one broker", Clients::alone);
        check("admin operations that are allowed", Clients::operations);
        check("admin describe configs with synonyms and documentation", Clients::synonyms);
        check("admin list groups by type and state", Clients::groupsBy);
        check("admin describe and alter configs of a topic", Clients::topicConfigs);
        check("admin describe configs of the broker", Clients::brokerConfigs);
        check("admin listOffsets", Clients::listOffsets);
        check("admin deleteRecords", Clients::deleteRecords);
        check("admin describeLogDirs", Clients::logDirs);
        check("admin list and describe groups", Clients::groups);
        check("admin list, alter and delete offsets of a group", Clients::groupOffsets);
        check("admin delete groups", Clients::deleteGroups);
        check("admin removes the members of a group", Clients::removeMembers);
        check("admin describeProducers", Clients::describeProducers);
        check("admin abortTransaction", Clients::abortTransaction);
        check("admin keys of SCRAM", Clients::scram);
        check("admin list and describe transactions", Clients::describeTransactions);
        check("admin fenceProducers", Clients::fenceProducers);
        check("admin describeAcls says that there are none", Clients::acls);
    }

    static void cluster() throws Exception {
        var told = admin.describeCluster();
        Collection<Node> nodes = told.nodes().get();
        equal("nodes", 1, nodes.size());
        Node node = nodes.iterator().next();
        equal("address", server, node.host() + ":" + node.port());
        equal("controller", node.id(), told.controller().get().id());
        yes("an id of the cluster", !told.clusterId().get().isEmpty());
    }

    static void quorum() throws Exception {
        var told = admin.describeMetadataQuorum().quorumInfo().get();
        int id = admin.describeCluster().controller().get().id();
        equal("leader", id, told.leaderId());
        equal("voters", List.of(id), told.voters().stream().map(v -> v.replicaId()).toList());
        equal("nodes", Set.of(id), told.nodes().keySet());
        equal("observers", List.of(), told.observers());
    }

    static void alone() throws Exception {
        String topic = topic(2);
        TopicPartition part = new TopicPartition(topic, 0);
        int id = described(topic).partitions().get(0).leader().id();
        var elected = admin.electLeaders(ElectionType.PREFERRED, Set.of(part)).partitions().get();
        yes("nothing to elect: " + elected, elected.get(part).get() instanceof ElectionNotNeededException);
        var all = admin.electLeaders(ElectionType.PREFERRED, null).partitions().get();
        yes("nor elsewhere: " + all, all.values().stream().allMatch(Optional::isEmpty));
        equal("reassignments", Map.of(), admin.listPartitionReassignments().reassignments().get());
        equal("of one", Map.of(), admin.listPartitionReassignments(Set.of(part)).reassignments().get());
        admin.alterPartitionReassignments(Map.of(part, Optional.of(new NewPartitionReassignment(List.of(id))))).all().get();
        fails("a broker that is not there", () -> admin.alterPartitionReassignments(
            Map.of(part, Optional.of(new NewPartitionReassignment(List.of(77))))).all(), InvalidReplicaAssignmentException.class);
        fails("nothing to cancel", () -> admin.alterPartitionReassignments(Map.of(part, Optional.empty())).all(),
            NoReassignmentInProgressException.class);
        equal("quotas", Map.of(), admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get());
        var replica = new TopicPartitionReplica(topic, 0, id);
        yes("a folder", admin.describeReplicaLogDirs(List.of(replica)).all().get().get(replica).getCurrentReplicaLogDir() != null);
    }

    static void operations() throws Exception {
        String topic = topic(1);
        var cluster = admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true)).authorizedOperations().get();
        yes("of the cluster: " + cluster, cluster.containsAll(Set.of(AclOperation.CREATE, AclOperation.DESCRIBE)));
        var told = admin.describeTopics(List.of(topic), new DescribeTopicsOptions().includeAuthorizedOperations(true)).allTopicNames().get();
        equal("of the topic", Set.of(AclOperation.READ, AclOperation.WRITE, AclOperation.CREATE, AclOperation.DELETE, AclOperation.ALTER,
            AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS, AclOperation.ALTER_CONFIGS), told.get(topic).authorizedOperations());
    }

    static void synonyms() throws Exception {
        String topic = topic(1, "retention.ms", "3600000");
        ConfigResource r = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Config told = admin.describeConfigs(List.of(r), new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true))
            .all().get().get(r);
        for (ConfigEntry e : told.entries()) {
            yes(e.name() + " is explained", !e.documentation().isEmpty());
            yes(e.name() + " has a type", e.type() != ConfigEntry.ConfigType.UNKNOWN);
        }
        var all = told.get("retention.ms").synonyms();
        equal("first", List.of("retention.ms", "3600000"), List.of(all.get(0).name(), all.get(0).value()));
        all = told.get("segment.bytes").synonyms();
        equal("the broker's name of it", "log.segment.bytes", all.get(0).name());
        equal("its source", ConfigEntry.ConfigSource.DEFAULT_CONFIG, all.get(0).source());
    }

    static void groupsBy() throws Exception {
        String topic = topic(1), classic = name("group"), consumer = name("group");
        try (Consumer<String, String> a = member(classic, CLASSIC); Consumer<String, String> b = member(consumer, CONSUMER)) {
            a.subscribe(List.of(topic));
            b.subscribe(List.of(topic));
            List<String> got = new ArrayList<>();
            until("both have it", () -> takes(a, got).assignment().size() == 1 & takes(b, got).assignment().size() == 1);
            for (var type : Map.of(GroupType.CLASSIC, classic, GroupType.CONSUMER, consumer).entrySet()) {
                var by = new ListGroupsOptions().withTypes(Set.of(type.getKey())).inGroupStates(Set.of(GroupState.STABLE));
                Set<String> told = admin.listGroups(by).all().get().stream().map(GroupListing::groupId).collect(Collectors.toSet());
                yes("by " + type + ": " + told, told.contains(type.getValue()) && !(told.contains(classic) && told.contains(consumer)));
            }
            var empty = new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY));
            yes("not among the empty ones", admin.listGroups(empty).all().get().stream().noneMatch(
                g -> g.groupId().equals(classic) || g.groupId().equals(consumer)));
            Set<String> both = admin.listGroups(ListGroupsOptions.forConsumerGroups()).all().get().stream()
                .map(GroupListing::groupId).collect(Collectors.toSet());
            yes("both are of consumers", both.containsAll(Set.of(classic, consumer)));
        }
    }

    static void features() throws Exception {
        FeatureMetadata told = admin.describeFeatures().featureMetadata().get();
        yes("finalized features are supported ones", told.supportedFeatures().keySet().containsAll(told.finalizedFeatures().keySet()));
    }

    static void topics() throws Exception {
        String one = name("topic"), two = name("topic");
        var options = new CreateTopicsOptions();
        admin.createTopics(List.of(new NewTopic(one, 3, (short) 1)), options.validateOnly(true)).all().get();
        yes("only validated", !admin.listTopics().names().get().contains(one));
        var made = admin.createTopics(List.of(new NewTopic(one, 3, (short) 1).configs(Map.of("retention.ms", "123456789")),
            new NewTopic(two, Map.of(0, List.of(described(topic(1)).partitions().get(0).leader().id())))));
        made.all().get();
        equal("partitions told", 3, made.numPartitions(one).get());
        equal("replication told", 1, made.replicationFactor(one).get());
        equal("config told", "123456789", made.config(one).get().get("retention.ms").value());
        until("both are listed", () -> admin.listTopics().names().get().containsAll(List.of(one, two)));
        Uuid id = made.topicId(one).get();
        TopicDescription told = described(one);
        equal("id", id, told.topicId());
        equal("partitions", List.of(0, 1, 2), told.partitions().stream().map(p -> p.partition()).toList());
        equal("in sync", told.partitions().get(0).replicas(), told.partitions().get(0).isr());
        equal("by its id", one, admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).topicIdValues().get(id).get().name());
        admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
        admin.deleteTopics(List.of(two)).all().get();
        until("neither is listed", () -> Collections.disjoint(admin.listTopics().names().get(), List.of(one, two)));
        fails("describe", () -> described(one), UnknownTopicOrPartitionException.class);
    }

    static void badTopics() throws Exception {
        String topic = topic(1);
        fails("again", () -> admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all(), TopicExistsException.class);
        fails("name", () -> admin.createTopics(List.of(new NewTopic("a b", 1, (short) 1))).all(), InvalidTopicException.class);
        fails("count", () -> admin.createTopics(List.of(new NewTopic(name("topic"), 0, (short) 1))).all(),
            InvalidPartitionsException.class);
        NewTopic odd = new NewTopic(name("topic"), 1, (short) 1).configs(Map.of("retention.ms", "x"));
        fails("config", () -> admin.createTopics(List.of(odd)).all(), InvalidConfigurationException.class);
        fails("unknown", () -> admin.deleteTopics(List.of(name("topic"))).all(), UnknownTopicOrPartitionException.class);
    }

    static void grow() throws Exception {
        String topic = topic(2);
        fails("fewer", () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(1))).all(), InvalidPartitionsException.class);
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get();
        until("four are there", () -> described(topic).partitions().size() == 4);
        write(topic, 0, 40);
        equal("values", numbers(0, 40), sorted(values(topic, "read_uncommitted")));
    }

    static Config configOf(ConfigResource.Type type, String name) throws Exception {
        ConfigResource r = new ConfigResource(type, name);
        return admin.describeConfigs(List.of(r)).all().get().get(r);
    }

    static void topicConfigs() throws Exception {
        String topic = topic(1, "cleanup.policy", "delete", "retention.ms", "86400000");
        ConfigResource r = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Config before = configOf(ConfigResource.Type.TOPIC, topic);
        equal("set", "86400000", before.get("retention.ms").value());
        equal("its source", ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, before.get("retention.ms").source());
        equal("not set", ConfigEntry.ConfigSource.DEFAULT_CONFIG, before.get("max.message.bytes").source());
        yes("many are told", before.entries().size() > 20);
        admin.incrementalAlterConfigs(Map.of(r, List.of(
            new AlterConfigOp(new ConfigEntry("retention.ms", null), AlterConfigOp.OpType.DELETE),
            new AlterConfigOp(new ConfigEntry("max.message.bytes", "2000000"), AlterConfigOp.OpType.SET),
            new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND)))).all().get();
        until("they are altered", () -> configOf(ConfigResource.Type.TOPIC, topic).get("max.message.bytes").value().equals("2000000"));
        Config after = configOf(ConfigResource.Type.TOPIC, topic);
        equal("default again", ConfigEntry.ConfigSource.DEFAULT_CONFIG, after.get("retention.ms").source());
        equal("appended", Set.of("delete", "compact"), Set.of(after.get("cleanup.policy").value().split(",")));
        fails("no number", () -> admin.incrementalAlterConfigs(Map.of(r, List.of(
            new AlterConfigOp(new ConfigEntry("retention.ms", "soon"), AlterConfigOp.OpType.SET)))).all(),
            InvalidConfigurationException.class);
        yes("listed", admin.listConfigResources(Set.of(ConfigResource.Type.TOPIC), new ListConfigResourcesOptions())
            .all().get().contains(r));
    }

    static void brokerConfigs() throws Exception {
        Node node = admin.describeCluster().nodes().get().iterator().next();
        Config told = configOf(ConfigResource.Type.BROKER, "" + node.id());
        yes("many are told", told.entries().size() > 5);
        yes("auto.create.topics.enable is told", told.get("auto.create.topics.enable") != null);
    }

    static void listOffsets() throws Exception {
        String topic = topic(1);
        TopicPartition part = new TopicPartition(topic, 0);
        try (Producer<String, String> p = producer(Map.of())) {
            for (long t : new long[] {100, 300, 200})
                p.send(new ProducerRecord<>(topic, 0, 1700000000000L + t, null, "x")).get();
        }
        Map<OffsetSpec, Long> expected = Map.of(OffsetSpec.earliest(), 0L, OffsetSpec.latest(), 3L, OffsetSpec.maxTimestamp(), 1L,
            OffsetSpec.forTimestamp(1700000000150L), 1L, OffsetSpec.forTimestamp(1900000000000L), -1L, OffsetSpec.earliestLocal(), 0L);
        for (var e : expected.entrySet())
            equal(e.getKey().getClass().getSimpleName(), e.getValue(),
                admin.listOffsets(Map.of(part, e.getKey())).all().get().get(part).offset());
    }

    static void deleteRecords() throws Exception {
        String topic = topic(1);
        TopicPartition part = new TopicPartition(topic, 0);
        write(topic, 0, 100);
        equal("begin told", 40L, deletedBefore(part, 40));
        equal("values", numbers(40, 100), values(topic, "read_uncommitted"));
        equal("begin told", 100L, deletedBefore(part, -1));
        equal("values", List.of(), values(topic, "read_uncommitted"));
        fails("beyond the end", () -> deletedBefore(part, 1000), OffsetOutOfRangeException.class);
    }

    static long deletedBefore(TopicPartition part, long offset) throws Exception {
        return admin.deleteRecords(Map.of(part, RecordsToDelete.beforeOffset(offset))).lowWatermarks().get(part).get().lowWatermark();
    }

    static void logDirs() throws Exception {
        String topic = topic(2);
        int id = admin.describeCluster().nodes().get().iterator().next().id();
        equal("nothing yet", 0L, size(topic));
        write(topic, 0, 100);
        yes("something now", size(topic) > 500);
        int count = 0;
        for (LogDirDescription dir : admin.describeLogDirs(List.of(id)).descriptions().get(id).get().values()) {
            equal("error", null, dir.error());
            yes("its disk: " + dir, dir.totalBytes().getAsLong() >= dir.usableBytes().getAsLong() && dir.usableBytes().getAsLong() > 0);
            count += (int) dir.replicaInfos().keySet().stream().filter(p -> p.topic().equals(topic)).count();
        }
        equal("partitions", 2, count);
    }

    static void groups() throws Exception {
        String topic = topic(2), classic = name("group"), consumer = name("group");
        try (Consumer<String, String> a = member(classic, CLASSIC, "client.id", "first");
             Consumer<String, String> b = member(consumer, CONSUMER)) {
            a.subscribe(List.of(topic));
            b.subscribe(List.of(topic));
            List<String> got = new ArrayList<>();
            until("both have all", () -> takes(a, got).assignment().size() == 2 & takes(b, got).assignment().size() == 2);
            Map<String, GroupListing> listed =
                admin.listGroups().all().get().stream().collect(Collectors.toMap(GroupListing::groupId, g -> g));
            equal("type", Optional.of(GroupType.CLASSIC), listed.get(classic).type());
            equal("type", Optional.of(GroupType.CONSUMER), listed.get(consumer).type());
            equal("protocol", "consumer", listed.get(classic).protocol());
            equal("state", Optional.of(GroupState.STABLE), listed.get(classic).groupState());
            var told = admin.describeConsumerGroups(List.of(classic, consumer)).all().get();
            for (String group : List.of(classic, consumer)) {
                equal("state", GroupState.STABLE, told.get(group).groupState());
                equal("members", 1, told.get(group).members().size());
                equal("assignment", new HashSet<>(partitions(topic)),
                    told.get(group).members().iterator().next().assignment().topicPartitions());
                yes("a coordinator", told.get(group).coordinator().port() > 0);
            }
            equal("client id", "first", told.get(classic).members().iterator().next().clientId());
            equal("assignor", "range", told.get(classic).partitionAssignor());
            equal("classic", ClassicGroupState.STABLE, admin.describeClassicGroups(List.of(classic)).all().get().get(classic).state());
            fails("one that is not there", () -> admin.describeConsumerGroups(List.of(name("group"))).all(),
                GroupIdNotFoundException.class);
        }
    }

    static void groupOffsets() throws Exception {
        String topic = topic(2), group = name("group");
        List<TopicPartition> parts = partitions(topic);
        write(topic, 0, 100);
        admin.alterConsumerGroupOffsets(group, Map.of(parts.get(0), new OffsetAndMetadata(20),
            parts.get(1), new OffsetAndMetadata(30, "note"))).all().get();
        var told = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        equal("offset", 20L, told.get(parts.get(0)).offset());
        equal("note", "note", told.get(parts.get(1)).metadata());
        List<String> got = new ArrayList<>();
        try (Consumer<String, String> c = member(group, CLASSIC)) {
            c.subscribe(List.of(topic));
            until("50 came", () -> takes(c, got) != null && got.size() >= 50);
            fails("of a group with members",
                () -> admin.alterConsumerGroupOffsets(group, Map.of(parts.get(0), new OffsetAndMetadata(1))).all(),
                UnknownMemberIdException.class);
            fails("of a topic with readers", () -> admin.deleteConsumerGroupOffsets(group, Set.of(parts.get(0))).all(),
                GroupSubscribedToTopicException.class);
        }
        equal("from there on", 50, got.size());
        admin.deleteConsumerGroupOffsets(group, Set.of(parts.get(0))).all().get();
        told = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        equal("deleted", null, told.get(parts.get(0)));
        equal("kept", 50L, told.get(parts.get(1)).offset());
    }

    static void deleteGroups() throws Exception {
        String topic = topic(1), group = name("group");
        write(topic, 0, 10);
        try (Consumer<String, String> c = member(group, CONSUMER)) {
            List<String> got = new ArrayList<>();
            c.subscribe(List.of(topic));
            until("ten came", () -> takes(c, got) != null && got.size() >= 10);
            fails("one with members", () -> admin.deleteConsumerGroups(List.of(group)).all(), GroupNotEmptyException.class);
        }
        admin.deleteConsumerGroups(List.of(group)).all().get();
        yes("not listed", admin.listGroups().all().get().stream().noneMatch(g -> g.groupId().equals(group)));
        fails("again", () -> admin.deleteConsumerGroups(List.of(group)).all(), GroupIdNotFoundException.class);
    }

    /** By their ids. A member that asks for offsets or commits some before it hears that it is none any more fails; these have read. */
    static void removeMembers() throws Exception {
        String topic = topic(1), classic = name("group"), consumer = name("group");
        var everybody = new RemoveMembersFromConsumerGroupOptions();
        List<String> got = new ArrayList<>();
        try (Consumer<String, String> a = member(classic, CLASSIC, "enable.auto.commit", false);
             Consumer<String, String> b = member(consumer, CONSUMER, "enable.auto.commit", false)) {
            a.subscribe(List.of(topic));
            b.subscribe(List.of(topic));
            write(topic, 0, 10);
            until("both have read", () -> takes(a, got) != null && takes(b, got) != null && got.size() >= 20);
            for (String group : List.of(classic, consumer)) {
                admin.removeMembersFromConsumerGroup(group, everybody).all().get();
                equal("state told", GroupState.EMPTY, admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupState());
            }
            until("both have read it again", () -> takes(a, got) != null && takes(b, got) != null && got.size() >= 40);
        }
    }

    static void describeProducers() throws Exception {
        String topic = topic(1), id = name("txn");
        TopicPartition part = new TopicPartition(topic, 0);
        try (Producer<String, String> p = transactional(id)) {
            p.beginTransaction();
            send(p, topic, 0, 10).get(9).get();
            List<ProducerState> told = admin.describeProducers(List.of(part)).partitionResult(part).get().activeProducers();
            equal("producers", 1, told.size());
            equal("last sequence", 9, told.get(0).lastSequence());
            equal("start of the transaction", OptionalLong.of(0), told.get(0).currentTransactionStartOffset());
            yes("a time", told.get(0).lastTimestamp() > 0);
            p.commitTransaction();
            until("no transaction", () -> admin.describeProducers(List.of(part)).partitionResult(part).get().activeProducers().get(0)
                .currentTransactionStartOffset().isEmpty());
        }
    }

    static void abortTransaction() throws Exception {
        String topic = topic(1), id = name("txn");
        TopicPartition part = new TopicPartition(topic, 0);
        try (Producer<String, String> p = transactional(id)) {
            p.beginTransaction();
            send(p, topic, 0, 3).get(2).get();
            equal("stable up to", 0L, stable(part));
            ProducerState told = admin.describeProducers(List.of(part)).partitionResult(part).get().activeProducers().get(0);
            admin.abortTransaction(new AbortTransactionSpec(part, told.producerId(), (short) told.producerEpoch(),
                told.coordinatorEpoch().orElse(0))).all().get();
            until("nothing is open", () -> stable(part) == 4);
            equal("readers of committed records", List.of(), values(topic, "read_committed"));
        }
    }

    static long stable(TopicPartition part) throws Exception {
        return admin.listOffsets(Map.of(part, OffsetSpec.latest()), new ListOffsetsOptions(IsolationLevel.READ_COMMITTED))
            .partitionResult(part).get().offset();
    }

    static void scram() throws Exception {
        String user = name("user");
        ScramCredentialInfo keys = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 8192);
        admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(user, keys, "secret"))).all().get();
        until("made", () -> admin.describeUserScramCredentials().all().get().containsKey(user));
        equal("keys", List.of(keys), admin.describeUserScramCredentials(List.of(user)).description(user).get().credentialInfos());
        var gone = List.<UserScramCredentialAlteration>of(new UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_512));
        admin.alterUserScramCredentials(gone).all().get();
        until("gone", () -> !admin.describeUserScramCredentials().all().get().containsKey(user));
        fails("deleted twice", () -> admin.alterUserScramCredentials(gone).all(), ResourceNotFoundException.class);
    }

    static void describeTransactions() throws Exception {
        String topic = topic(2), id = name("txn");
        try (Producer<String, String> p = transactional(id)) {
            equal("new", TransactionState.EMPTY, transaction(id).state());
            p.beginTransaction();
            for (Future<RecordMetadata> f : send(p, topic, 0, 2))
                f.get();
            TransactionDescription told = transaction(id);
            equal("state", TransactionState.ONGOING, told.state());
            equal("partitions", new HashSet<>(partitions(topic)), told.topicPartitions());
            equal("time-out", 60000L, told.transactionTimeoutMs());
            yes("a start", told.transactionStartTimeMs().isPresent());
            equal("listed", TransactionState.ONGOING, listed(new ListTransactionsOptions(), id));
            equal("listed by state", TransactionState.ONGOING,
                listed(new ListTransactionsOptions().filterStates(Set.of(TransactionState.ONGOING)), id));
            equal("listed by producer", TransactionState.ONGOING,
                listed(new ListTransactionsOptions().filterProducerIds(Set.of(told.producerId())), id));
            equal("listed by another state", null,
                listed(new ListTransactionsOptions().filterStates(Set.of(TransactionState.COMPLETE_ABORT)), id));
            equal("listed by age", null, listed(new ListTransactionsOptions().filterOnDuration(3600_000), id));
            equal("listed by pattern", TransactionState.ONGOING,
                listed(new ListTransactionsOptions().filterOnTransactionalIdPattern("java-txn-[0-9]+"), id));
            equal("listed by a part", null, listed(new ListTransactionsOptions().filterOnTransactionalIdPattern("java-txn"), id));
            fails("listed by what is no pattern", () -> listed(new ListTransactionsOptions().filterOnTransactionalIdPattern("(a"), id),
                InvalidRegularExpression.class);
            p.commitTransaction();
            until("committed", () -> transaction(id).state() == TransactionState.COMPLETE_COMMIT);
            equal("partitions", Set.of(), transaction(id).topicPartitions());
            equal("start", told.transactionStartTimeMs(), transaction(id).transactionStartTimeMs());
        }
        fails("one that is not there", () -> admin.describeTransactions(List.of(name("txn"))).all(),
            TransactionalIdNotFoundException.class);
    }

    static TransactionDescription transaction(String id) throws Exception {
        return admin.describeTransactions(List.of(id)).description(id).get();
    }

    static TransactionState listed(ListTransactionsOptions options, String id) throws Exception {
        for (TransactionListing t : admin.listTransactions(options).all().get())
            if (t.transactionalId().equals(id))
                return t.state();
        return null;
    }

    static void fenceProducers() throws Exception {
        String topic = topic(1), id = name("txn");
        try (Producer<String, String> p = transactional(id)) {
            p.beginTransaction();
            send(p, topic, 0, 5).get(4).get();
            admin.fenceProducers(List.of(id)).all().get();
            fenced(p, topic);
        }
        until("it is over", () -> transaction(id).state() != TransactionState.ONGOING);
        equal("committed", List.of(), values(topic, "read_committed"));
    }

    static void acls() throws Exception {
        fails("describeAcls", () -> admin.describeAcls(AclBindingFilter.ANY).values(), SecurityDisabledException.class);
    }

    // ---------------------------------------------------------------------------------------------------- transactions
    static void transactions() {
        check("transaction commit", () -> ended(true));
        check("transaction abort", () -> ended(false));
        check("transaction version 2: another epoch at each end", Clients::epochs);
        check("transactions of one producer, every third aborted", Clients::many);
        check("transactions of three producers, interleaved", Clients::interleaved);
        check("transaction without records, and with offsets only", Clients::empty);
        check("transaction read_committed waits for an open one", Clients::waits);
        check("transaction offsets, group classic", () -> transformed(CLASSIC));
        check("transaction offsets, group consumer (KIP-848)", () -> transformed(CONSUMER));
        check("transaction offsets of a member that is gone", Clients::gone);
        check("transaction of a producer that went is aborted by its successor", Clients::successor);
        check("transaction fencing of the first producer by the second", Clients::fencing);
        check("transaction time-out", Clients::timeOut);
        check("transaction abort after a record that was refused", Clients::refused);
    }

    static void ended(boolean commit) throws Exception {
        String one = topic(3), two = topic(1);
        try (Producer<String, String> p = transactional(name("txn"))) {
            p.beginTransaction();
            send(p, one, 0, 30);
            send(p, two, 30, 40);
            p.flush(); // what has not been sent yet goes with an abort
            if (commit)
                p.commitTransaction();
            else
                p.abortTransaction();
            p.beginTransaction();
            send(p, one, 40, 50);
            p.commitTransaction();
        }
        List<String> first = commit ? numbers(0, 30) : List.of(), both = new ArrayList<>(first);
        both.addAll(numbers(40, 50));
        equal("committed", both, sorted(values(one, "read_committed")));
        equal("committed", commit ? numbers(30, 40) : List.of(), values(two, "read_committed"));
        List<String> all = new ArrayList<>(numbers(0, 30));
        all.addAll(numbers(40, 50));
        equal("uncommitted", all, sorted(values(one, "read_uncommitted")));
        equal("uncommitted", numbers(30, 40), values(two, "read_uncommitted"));
    }

    /** Which only EndTxn 5 answers with, and only producers that join with Produce ask for (KIP-890). */
    static void epochs() throws Exception {
        String topic = topic(1), id = name("txn");
        try (Producer<String, String> p = transactional(id)) {
            TransactionDescription told = transaction(id);
            for (int i = 1; i <= 6; i++) {
                p.beginTransaction();
                send(p, topic, i, i + 1).get(0).get();
                if (i % 3 == 0)
                    p.abortTransaction();
                else
                    p.commitTransaction();
                equal("producer", told.producerId(), transaction(id).producerId());
                equal("epoch", told.producerEpoch() + i, transaction(id).producerEpoch());
            }
        }
        equal("committed", List.of("1", "2", "4", "5"), values(topic, "read_committed"));
    }

    static void many() throws Exception {
        String topic = topic(2);
        List<String> expected = new ArrayList<>();
        try (Producer<String, String> p = producer(Map.of("transactional.id", name("txn"), "compression.type", "lz4"))) {
            p.initTransactions();
            for (int i = 0; i < 100; i++) {
                p.beginTransaction();
                send(p, topic, 10 * i, 10 * i + 10);
                if (i % 3 == 2) {
                    p.flush();
                    p.abortTransaction();
                } else {
                    p.commitTransaction();
                    expected.addAll(numbers(10 * i, 10 * i + 10));
                }
            }
        }
        equal("committed", expected, sorted(values(topic, "read_committed")));
        equal("uncommitted", numbers(0, 1000), sorted(values(topic, "read_uncommitted")));
    }

    static void interleaved() throws Exception {
        String topic = topic(1);
        List<Producer<String, String>> all = new ArrayList<>();
        try {
            for (int i = 0; i < 3; i++)
                all.add(transactional(name("txn")));
            for (int round = 0; round < 5; round++) {
                for (Producer<String, String> p : all)
                    p.beginTransaction();
                for (int i = 0; i < 30; i++)
                    all.get(i % 3).send(new ProducerRecord<>(topic, 0, null, "" + (30 * round + i))).get();
                all.get(2).commitTransaction();
                all.get(1).abortTransaction();
                all.get(0).commitTransaction();
            }
        } finally {
            all.forEach(Producer::close);
        }
        equal("committed", numbers(0, 150).stream().filter(v -> Integer.parseInt(v) % 3 != 1).toList(), values(topic, "read_committed"));
    }

    static void empty() throws Exception {
        String topic = topic(1), group = name("group");
        TopicPartition part = new TopicPartition(topic, 0);
        try (Producer<String, String> p = transactional(name("txn")); Consumer<String, String> none = member(group, CLASSIC)) {
            p.beginTransaction();
            p.commitTransaction();
            p.beginTransaction();
            p.abortTransaction();
            p.beginTransaction();
            p.sendOffsetsToTransaction(Map.of(part, new OffsetAndMetadata(5)), none.groupMetadata());
            p.commitTransaction();
            equal("offset", 5L, offset(group, part));
            p.beginTransaction();
            p.sendOffsetsToTransaction(Map.of(part, new OffsetAndMetadata(7)), none.groupMetadata());
            p.abortTransaction();
            equal("offset", 5L, offset(group, part));
        }
    }

    static long offset(String group, TopicPartition part) throws Exception {
        return admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(part).offset();
    }

    static void waits() throws Exception {
        String topic = topic(1);
        TopicPartition part = new TopicPartition(topic, 0);
        try (Producer<String, String> p = transactional(name("txn"));
             Consumer<String, String> c = consumer(Map.of("isolation.level", "read_committed"))) {
            write(topic, 0, 10);
            p.beginTransaction();
            send(p, topic, 10, 20).get(9).get();
            write(topic, 20, 30);
            c.assign(List.of(part));
            equal("end of the committed", 10L, c.endOffsets(List.of(part)).get(part));
            List<String> got = new ArrayList<>();
            until("what is before it came", () -> takes(c, got) != null && got.size() >= 10);
            takes(c, got);
            equal("nothing more", numbers(0, 10), got);
            p.commitTransaction();
            until("the rest came", () -> takes(c, got) != null && got.size() >= 30);
            equal("all", numbers(0, 30), got);
            equal("end, with the mark", 31L, c.endOffsets(List.of(part)).get(part));
        }
    }

    /** Reads, writes and commits offsets in transactions; some are aborted and done again. */
    static void transformed(Map<String, Object> how) throws Exception {
        String from = topic(2), to = topic(2), group = name("group");
        write(from, 0, 500);
        int done = 0, tries = 0;
        try (Consumer<String, String> c = member(group, how, "enable.auto.commit", false, "max.poll.records", 20,
             "isolation.level", "read_committed");
             Producer<String, String> p = transactional(name("txn"))) {
            c.subscribe(List.of(from));
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(LONGEST_S);
            while (done < 500) {
                yes("500 within a minute, not " + done, System.nanoTime() < end);
                var records = c.poll(POLL);
                if (records.isEmpty())
                    continue;
                p.beginTransaction();
                Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                for (ConsumerRecord<String, String> r : records) {
                    p.send(new ProducerRecord<>(to, r.partition(), r.key(), r.value()));
                    offsets.put(new TopicPartition(from, r.partition()), new OffsetAndMetadata(r.offset() + 1));
                }
                p.sendOffsetsToTransaction(offsets, c.groupMetadata());
                if (tries++ % 4 == 1) {
                    p.abortTransaction();
                    Map<TopicPartition, OffsetAndMetadata> commits = c.committed(c.assignment());
                    for (TopicPartition part : c.assignment())
                        c.seek(part, commits.get(part) == null ? 0 : commits.get(part).offset());
                } else {
                    p.commitTransaction();
                    done += records.count();
                }
            }
        }
        equal("each once", numbers(0, 500), sorted(values(to, "read_committed")));
        for (TopicPartition part : partitions(from))
            equal("commit of " + part, 250L, offset(group, part));
    }

    static void gone() throws Exception {
        String topic = topic(1), group = name("group");
        TopicPartition part = new TopicPartition(topic, 0);
        ConsumerGroupMetadata old;
        try (Consumer<String, String> c = member(group, CLASSIC, "enable.auto.commit", false)) {
            c.subscribe(List.of(topic));
            until("it has it", () -> takes(c, new ArrayList<>()).assignment().size() == 1);
            old = c.groupMetadata();
        }
        try (Consumer<String, String> c = member(group, CLASSIC, "enable.auto.commit", false);
             Producer<String, String> p = transactional(name("txn"))) {
            c.subscribe(List.of(topic));
            until("another has it", () -> takes(c, new ArrayList<>()).assignment().size() == 1);
            p.beginTransaction();
            fails("offsets of the old member", () -> {
                p.sendOffsetsToTransaction(Map.of(part, new OffsetAndMetadata(3)), old);
                p.commitTransaction();
                return null;
            }, CommitFailedException.class);
            p.abortTransaction();
            equal("no offset", null, c.committed(Set.of(part)).get(part));
        }
    }

    static void successor() throws Exception {
        String topic = topic(1), id = name("txn");
        Producer<String, String> went = transactional(id);
        try {
            went.beginTransaction();
            send(went, topic, 0, 10).get(9).get();
            went.close(Duration.ZERO);
            try (Producer<String, String> p = transactional(id)) {
                p.beginTransaction();
                send(p, topic, 10, 20);
                p.commitTransaction();
            }
        } finally {
            went.close(Duration.ZERO);
        }
        equal("committed", numbers(10, 20), values(topic, "read_committed"));
    }

    static void fencing() throws Exception {
        String topic = topic(1), id = name("txn");
        try (Producer<String, String> first = transactional(id)) {
            first.beginTransaction();
            send(first, topic, 0, 5).get(4).get();
            try (Producer<String, String> second = transactional(id)) {
                second.beginTransaction();
                send(second, topic, 10, 20);
                fenced(first, topic);
                second.commitTransaction();
                second.beginTransaction();
                send(second, topic, 20, 30);
                second.commitTransaction();
            }
        }
        equal("committed", numbers(10, 30), values(topic, "read_committed"));
    }

    /** Nothing comes through any more; after an abort, if the client allows one, it knows that it is fenced. */
    static void fenced(Producer<String, String> p, String topic) throws Exception {
        fails("a record of a fenced producer", () -> send(p, topic, 5, 6).get(0),
            ProducerFencedException.class, InvalidProducerEpochException.class);
        fails("its commit", () -> {
            p.commitTransaction();
            return null;
        }, ProducerFencedException.class, InvalidProducerEpochException.class);
        fails("its next transaction", () -> {
            p.abortTransaction();
            p.beginTransaction();
            return null;
        }, ProducerFencedException.class, InvalidProducerEpochException.class);
    }

    static void timeOut() throws Exception {
        String topic = topic(1), id = name("txn");
        try (Producer<String, String> p = producer(Map.of("transactional.id", id, "transaction.timeout.ms", 1000))) {
            p.initTransactions();
            p.beginTransaction();
            send(p, topic, 0, 5).get(4).get();
            until("it is aborted", () -> transaction(id).state() == TransactionState.COMPLETE_ABORT);
            fails("the commit", () -> {
                p.commitTransaction();
                return null;
            }, ProducerFencedException.class, InvalidProducerEpochException.class,
                InvalidTxnStateException.class);
        }
        try (Producer<String, String> p = transactional(id)) {
            p.beginTransaction();
            send(p, topic, 5, 10);
            p.commitTransaction();
        }
        equal("committed", numbers(5, 10), values(topic, "read_committed"));
        Throwable why = fails("a time-out longer than the broker allows", () -> {
            try (Producer<String, String> p = producer(Map.of("transactional.id", name("txn"), "transaction.timeout.ms", 86400000))) {
                p.initTransactions();
            }
            return null;
        }, KafkaException.class);
        yes("says which: " + why.getMessage(), why.getMessage().contains("timeout is larger than the maximum"));
    }

    static void refused() throws Exception {
        String topic = topic(1, "max.message.bytes", "1000");
        try (Producer<String, String> p = transactional(name("txn"))) {
            p.beginTransaction();
            send(p, topic, 0, 5).get(4).get();
            fails("too large", () -> p.send(new ProducerRecord<>(topic, "x".repeat(5000))), RecordTooLargeException.class);
            fails("commit", () -> {
                p.commitTransaction();
                return null;
            }, KafkaException.class);
            p.abortTransaction();
            p.beginTransaction();
            send(p, topic, 5, 10);
            p.commitTransaction();
        }
        equal("committed", numbers(5, 10), values(topic, "read_committed"));
    }

    // --------------------------------------------------------------------------------------------------------- streams
    static final String[] WORDS = {"mill", "race", "water", "wheel", "stone", "grain", "flour"};

    static void streams() {
        check("streams word count with exactly_once_v2, stopped and started", Clients::wordCount);
    }

    /**
     * Every word counted yields one record (nothing is cached), so per word the output has to be 1, 2, 3 and so on without a gap or
     * a repetition. The second instance has lost its local state, the third takes over while the second is being ended in a hurry.
     */
    static void wordCount() throws Exception {
        String input = topic(3), output = topic(2), application = name("streams");
        Map<String, Long> expected = new TreeMap<>();
        lines(input, expected, 500);
        try (KafkaStreams one = running(application, input, output, "one")) {
            until("a part is counted", () -> total(output) > 300);
        }
        lines(input, expected, 500);
        KafkaStreams two = running(application, input, output, "two");
        try {
            long before = total(output);
            until("another part is counted", () -> total(output) > before + 300);
            lines(input, expected, 500);
            two.close(Duration.ZERO);
            try (KafkaStreams three = running(application, input, output, "three")) {
                long all = expected.values().stream().mapToLong(n -> n).sum();
                until("all " + all + " are counted", () -> total(output) >= all);
                until("the store has it", () -> expected.equals(store(three)));
            }
        } finally {
            two.close();
        }
        counted(output, expected);
        Set<String> internal = admin.listTopics().names().get().stream().filter(t -> t.startsWith(application)).collect(Collectors.toSet());
        equal("topics of its own", Set.of(application + "-counts-changelog", application + "-counts-repartition"), internal);
        equal("a changelog is compacted", "compact",
            configOf(ConfigResource.Type.TOPIC, application + "-counts-changelog").get("cleanup.policy").value());
    }

    static void counted(String output, Map<String, Long> expected) throws Exception {
        Map<String, List<Long>> got = new TreeMap<>();
        for (KeyValue<String, Long> r : counts(output))
            got.computeIfAbsent(r.key, k -> new ArrayList<>()).add(r.value);
        equal("words", expected.keySet(), got.keySet());
        for (String word : got.keySet())
            equal("counts of " + word, LongStream.rangeClosed(1, expected.get(word)).boxed().toList(), got.get(word));
    }

    static void lines(String topic, Map<String, Long> expected, int count) throws Exception {
        Random random = new Random(count + expected.size());
        try (Producer<String, String> p = producer(Map.of("compression.type", "zstd"))) {
            for (int i = 0; i < count; i++) {
                List<String> words = random.ints(1 + random.nextInt(4), 0, WORDS.length).mapToObj(w -> WORDS[w]).toList();
                words.forEach(w -> expected.merge(w, 1L, Long::sum));
                p.send(new ProducerRecord<>(topic, "" + i, String.join(" ", words)));
            }
        }
    }

    static KafkaStreams running(String application, String input, String output, String place) throws Exception {
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, String> source = builder.stream(input, Consumed.with(Serdes.String(), Serdes.String()));
        source.flatMapValues(line -> Arrays.asList(line.split(" ")))
            .groupBy((key, word) -> word, Grouped.with("counts", Serdes.String(), Serdes.String()))
            .count(Materialized.as("counts")).toStream().to(output, Produced.with(Serdes.String(), Serdes.Long()));
        Properties p = new Properties();
        p.putAll(config(Map.of("application.id", application, "state.dir", folder.resolve(place).toString(), "processing.guarantee",
            "exactly_once_v2", "commit.interval.ms", 50, "statestore.cache.max.bytes", 0, "num.stream.threads", 2,
            "repartition.purge.interval.ms", 100, "replication.factor", -1, "main.consumer.session.timeout.ms", 10000)));
        KafkaStreams made = new KafkaStreams(builder.build(), p);
        made.start();
        return made;
    }

    static List<KeyValue<String, Long>> counts(String topic) throws Exception {
        List<KeyValue<String, Long>> got = new ArrayList<>();
        List<TopicPartition> parts = partitions(topic);
        try (Consumer<String, Long> c = new KafkaConsumer<>(config(Map.of("isolation.level", "read_committed")), new StringDeserializer(),
            new LongDeserializer())) {
            c.assign(parts);
            c.seekToBeginning(parts);
            Map<TopicPartition, Long> ends = c.endOffsets(parts);
            until("all is read to " + ends, () -> {
                c.poll(POLL).forEach(r -> got.add(KeyValue.pair(r.key(), r.value())));
                return parts.stream().allMatch(p -> c.position(p) >= ends.get(p));
            });
        }
        return got;
    }

    static long total(String topic) throws Exception {
        return counts(topic).size();
    }

    static Map<String, Long> store(KafkaStreams streams) {
        Map<String, Long> got = new TreeMap<>();
        if (streams.state() != KafkaStreams.State.RUNNING)
            return got;
        ReadOnlyKeyValueStore<String, Long> store =
            streams.store(StoreQueryParameters.fromNameAndType("counts", QueryableStoreTypes.keyValueStore()));
        try (var all = store.all()) {
            all.forEachRemaining(e -> got.put(e.key, e.value));
        }
        return got;
    }

    // --------------------------------------------------------------------------------------------- kill -9 of the broker
    // ------------------------------------------------------------------------------------------------- share groups
    static void sharers() {
        check("share group (KIP-932), two members share a topic", Clients::shared);
        check("share group (KIP-932), released and rejected records", Clients::released);
        check("share group (KIP-932), who goes gives back", Clients::givenBack);
        check("share group (KIP-932), a lock is renewed", Clients::renewed);
        check("share group (KIP-932), transactions", Clients::sharedTransactions);
        check("share group (KIP-932), admin tells it, moves it and deletes it", Clients::sharedAdmin);
    }

    static ShareConsumer<String, String> sharer(String group, boolean explicit, Object... more) {
        Map<String, Object> all = config(Map.of("group.id", group, "share.acknowledgement.mode", explicit ? "explicit" : "implicit"));
        for (int i = 0; i < more.length; i += 2)
            all.put((String) more[i], more[i + 1]);
        return new KafkaShareConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    /** A group that begins with the first record. */
    static String shareGroup(String... configs) throws Exception {
        String group = name("share");
        List<AlterConfigOp> ops = new ArrayList<>(List.of(set("share.auto.offset.reset", "earliest")));
        for (int i = 0; i < configs.length; i += 2)
            ops.add(set(configs[i], configs[i + 1]));
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        admin.incrementalAlterConfigs(Map.of(resource, ops)).all().get();
        until("the group is set", () -> {
            Config told = admin.describeConfigs(List.of(resource)).all().get().get(resource);
            return ops.stream().allMatch(o -> told.get(o.configEntry().name()).value().equals(o.configEntry().value()));
        });
        return group;
    }

    static AlterConfigOp set(String name, String value) {
        return new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET);
    }

    static List<ConsumerRecord<String, String>> polled(ShareConsumer<String, String> c) {
        List<ConsumerRecord<String, String>> got = new ArrayList<>();
        c.poll(POLL).forEach(got::add);
        return got;
    }

    static void shared() throws Exception {
        String topic = topic(4), group = shareGroup();
        List<String> got = new ArrayList<>(), other = new ArrayList<>();
        try (ShareConsumer<String, String> a = sharer(group, false); ShareConsumer<String, String> b = sharer(group, false)) {
            a.subscribe(List.of(topic));
            b.subscribe(List.of(topic));
            for (int round = 0; round < 5; round++) {
                write(topic, 400 * round, 400 * round + 400);
                int enough = 400 * round + 400;
                until(enough + " came", () -> {
                    polled(a).forEach(r -> got.add(r.value()));
                    polled(b).forEach(r -> other.add(r.value()));
                    return got.size() + other.size() >= enough;
                });
            }
            yes("both had some", !got.isEmpty() && !other.isEmpty());
            got.addAll(other);
            equal("each once", numbers(0, 2000), sorted(got));
            a.commitSync();
            b.commitSync();
            ShareGroupDescription told = admin.describeShareGroups(List.of(group)).all().get().get(group);
            equal("members told", 2, told.members().size());
            equal("state told", GroupState.STABLE, told.groupState());
        }
    }

    static void released() throws Exception {
        String topic = topic(1), group = shareGroup("share.delivery.count.limit", "3");
        Map<String, Integer> deliveries = new HashMap<>();
        Set<String> accepted = new HashSet<>();
        try (ShareConsumer<String, String> c = sharer(group, true)) {
            c.subscribe(List.of(topic));
            write(topic, 0, 90);
            until("a third is accepted", () -> {
                for (ConsumerRecord<String, String> r : polled(c)) {
                    int n = Integer.parseInt(r.value());
                    equal("count of " + n, Optional.of((short) (deliveries.merge(r.value(), 1, Integer::sum).intValue())), r.deliveryCount());
                    c.acknowledge(r, n % 3 == 0 ? AcknowledgeType.ACCEPT : n % 3 == 1 ? AcknowledgeType.RELEASE : AcknowledgeType.REJECT);
                    if (n % 3 == 0)
                        accepted.add(r.value());
                }
                c.commitSync();
                return accepted.size() == 30 && deliveries.values().stream().mapToInt(i -> i).sum() == 30 + 30 + 90;
            });
            write(topic, 90, 91);
            until("the next one came", () -> polled(c).stream().peek(r -> c.acknowledge(r)).anyMatch(r -> r.value().equals("90")));
        }
        for (int n = 0; n < 90; n++)
            equal("deliveries of " + n, n % 3 == 1 ? 3 : 1, deliveries.get("" + n));
    }

    static void givenBack() throws Exception {
        String topic = topic(1), group = shareGroup();
        List<String> got = new ArrayList<>();
        write(topic, 0, 50);
        try (ShareConsumer<String, String> a = sharer(group, true)) {
            a.subscribe(List.of(topic));
            until("50 came", () -> {
                for (ConsumerRecord<String, String> r : polled(a)) {
                    got.add(r.value());
                    if (Integer.parseInt(r.value()) < 20)
                        a.acknowledge(r);
                    else
                        a.acknowledge(r, AcknowledgeType.RELEASE);
                }
                return got.size() >= 50;
            });
        }
        try (ShareConsumer<String, String> b = sharer(group, false)) {
            List<String> again = new ArrayList<>();
            b.subscribe(List.of(topic));
            until("what was given back came", () -> {
                polled(b).forEach(r -> again.add(r.value()));
                return again.size() >= 30;
            });
            equal("what was given back", numbers(20, 50), sorted(again));
        }
    }

    static void renewed() throws Exception {
        String topic = topic(1), group = shareGroup("share.record.lock.duration.ms", "15000");
        write(topic, 0, 1);
        try (ShareConsumer<String, String> a = sharer(group, true)) {
            List<ConsumerRecord<String, String>> got = new ArrayList<>();
            a.subscribe(List.of(topic));
            until("it came", () -> got.addAll(polled(a)) || !got.isEmpty());
            equal("lock", Optional.of(15000), a.acquisitionLockTimeoutMs());
            a.acknowledge(got.get(0), AcknowledgeType.RENEW);
            equal("renewed", Map.of(), failures(a.commitSync()));
            until("it is here again", () -> polled(a).stream().peek(r -> a.acknowledge(r)).anyMatch(r -> r.value().equals("0")));
            equal("accepted", Map.of(), failures(a.commitSync()));
        }
    }

    static <K> Map<K, Object> failures(Map<K, ? extends Optional<? extends KafkaException>> results) {
        Map<K, Object> bad = new HashMap<>();
        results.forEach((k, v) -> v.ifPresent(e -> bad.put(k, e)));
        return bad;
    }

    static void sharedTransactions() throws Exception {
        String topic = topic(1), group = shareGroup("share.isolation.level", "read_committed");
        List<String> got = new ArrayList<>();
        try (ShareConsumer<String, String> c = sharer(group, false); Producer<String, String> p = transactional(name("id"))) {
            c.subscribe(List.of(topic));
            for (int i = 0; i < 20; i++) {
                p.beginTransaction();
                send(p, topic, 10 * i, 10 * i + 10);
                p.flush();
                if (i % 2 == 0)
                    p.commitTransaction();
                else
                    p.abortTransaction();
            }
            until("100 came", () -> {
                polled(c).forEach(r -> got.add(r.value()));
                return got.size() >= 100;
            });
        }
        equal("what was committed", numbers(0, 200).stream().filter(s -> Integer.parseInt(s) / 10 % 2 == 0).toList(), sorted(got));
    }

    static void sharedAdmin() throws Exception {
        String topic = topic(1), group = shareGroup();
        TopicPartition p = new TopicPartition(topic, 0);
        write(topic, 0, 10);
        try (ShareConsumer<String, String> c = sharer(group, false)) {
            List<String> got = new ArrayList<>();
            c.subscribe(List.of(topic));
            until("10 came", () -> {
                polled(c).forEach(r -> got.add(r.value()));
                return got.size() >= 10;
            });
            c.commitSync();
            until("nothing is left", () -> shareOffset(group, p).map(o -> o.lag().equals(Optional.of(0L))).orElse(false));
            fails("altering with members", () -> admin.alterShareGroupOffsets(group, Map.of(p, 3L)).all(), GroupNotEmptyException.class);
        }
        yes("it is listed", admin.listGroups(ListGroupsOptions.forShareGroups()).all().get().stream()
            .anyMatch(g -> g.groupId().equals(group) && g.type().equals(Optional.of(GroupType.SHARE))));
        until("it is empty", () -> admin.describeShareGroups(List.of(group)).all().get().get(group).groupState() == GroupState.EMPTY);
        admin.alterShareGroupOffsets(group, Map.of(p, 3L)).all().get();
        until("it begins at 3", () -> shareOffset(group, p).map(o -> o.startOffset() == 3).orElse(false));
        try (ShareConsumer<String, String> c = sharer(group, false)) {
            List<String> got = new ArrayList<>();
            c.subscribe(List.of(topic));
            until("7 came", () -> {
                polled(c).forEach(r -> got.add(r.value()));
                return got.size() >= 7;
            });
            equal("from 3 on", numbers(3, 10), sorted(got));
        }
        until("it is empty again", () -> admin.describeShareGroups(List.of(group)).all().get().get(group).groupState() == GroupState.EMPTY);
        admin.deleteShareGroupOffsets(group, Set.of(topic)).all().get();
        until("nothing was read", () -> shareOffset(group, p).isEmpty());
        admin.deleteShareGroups(List.of(group)).all().get();
    }

    static Optional<SharePartitionOffsetInfo> shareOffset(String group, TopicPartition p) throws Exception {
        return Optional.ofNullable(admin.listShareGroupOffsets(Map.of(group, new ListShareGroupOffsetsSpec())).partitionsToOffsetInfo(group).get().get(p));
    }

    static void killed() {
        check("killed broker: idempotent producer and groups go on", Clients::killedGroups);
        check("killed broker: transactions are whole, and their offsets with them", Clients::killedTransactions);
        check("killed broker: streams word count with exactly_once_v2", Clients::killedStreams);
        check("killed broker: share group goes on", Clients::killedShares);
    }

    /** Who runs this program ends the broker with SIGKILL, starts it again and says so. */
    static void kill() throws Exception {
        System.out.println("! kill -9");
        System.out.flush();
        String line = commands.readLine();
        yes("it was started again, and not: " + line, "started".equals(line));
    }

    /** One thread sends all the time, three members read; each record comes once in the partition and at least once to a member. */
    static void killedGroups() throws Exception {
        String topic = topic(4);
        List<Map<String, Object>> ways = List.of(CLASSIC, COOPERATIVE, CONSUMER);
        List<String> groups = ways.stream().map(w -> name("group")).toList();
        List<Set<String>> got = ways.stream().map(w -> (Set<String>) new HashSet<String>()).toList();
        List<Consumer<String, String>> all = new ArrayList<>();
        int count = 6000;
        FutureTask<Void> sending = new FutureTask<>(() -> {
            try (Producer<String, String> p = producer(Map.of("batch.size", 500, "linger.ms", 0))) {
                for (int from = 0; from < count; from += 20)
                    for (Future<RecordMetadata> f : send(p, topic, from, from + 20))
                        f.get();
            }
            return null;
        });
        try {
            for (int i = 0; i < ways.size(); i++) {
                Consumer<String, String> c = member(groups.get(i), ways.get(i));
                all.add(c);
                c.subscribe(List.of(topic));
            }
            new Thread(sending).start();
            for (int kills = 1; kills <= 3; kills++) {
                int enough = kills * count / 6;
                until("a part came", () -> polled(all, got).stream().anyMatch(s -> s.size() >= enough));
                kill();
            }
            until("all came to each", () -> polled(all, got).stream().allMatch(s -> s.size() == count));
            sending.get(LONGEST_S, TimeUnit.SECONDS);
        } finally {
            all.forEach(c -> c.close(CloseOptions.timeout(Duration.ZERO)));
        }
        equal("each once in the topic", numbers(0, count), sorted(values(topic, "read_uncommitted")));
    }

    /** Two members read while the broker is killed: all comes, and what was known to be accepted does not come again. */
    static void killedShares() throws Exception {
        String topic = topic(2), group = shareGroup();
        Set<String> done = new HashSet<>(), got = new HashSet<>();
        List<String> again = new ArrayList<>();
        write(topic, 0, 3000);
        try (ShareConsumer<String, String> c = sharer(group, true, "max.poll.records", 50)) {
            c.subscribe(List.of(topic));
            for (int kills = 0; kills <= 2; kills++) {
                int enough = (kills + 1) * 1000;
                until(enough + " are done with", () -> {
                    List<String> now = new ArrayList<>();
                    for (ConsumerRecord<String, String> r : polled(c)) {
                        if (done.contains(r.value()))
                            again.add(r.value());
                        now.add(r.value());
                        c.acknowledge(r);
                    }
                    if (failures(c.commitSync()).isEmpty())
                        done.addAll(now);
                    got.addAll(now);
                    return done.size() >= enough;
                });
                if (kills < 2)
                    kill();
            }
        }
        equal("all came", numbers(0, 3000), sorted(got));
        equal("came though they were accepted", List.of(), again);
    }

    static List<Set<String>> polled(List<Consumer<String, String>> all, List<Set<String>> got) {
        for (int i = 0; i < all.size(); i++) {
            Set<String> into = got.get(i);
            all.get(i).poll(Duration.ofMillis(10)).forEach(r -> into.add(r.value()));
        }
        return got;
    }

    /** From one topic to another in transactions, with the broker killed in the middle of some, before and while they end. */
    static void killedTransactions() throws Exception {
        String from = topic(2), to = topic(2), group = name("group"), id = name("txn");
        write(from, 0, 1000);
        Producer<String, String> p = null;
        int done = 0, tries = 0, kills = 0;
        try (Consumer<String, String> c = member(group, CLASSIC, "enable.auto.commit", false, "max.poll.records", 20,
            "isolation.level", "read_committed", "session.timeout.ms", 10000)) {
            c.subscribe(List.of(from));
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(2 * LONGEST_S);
            while (done < 1000) {
                yes("1000 within two minutes, not " + done + " after " + kills + " kills", System.nanoTime() < end);
                if (p == null)
                    p = transactional(id);
                var records = c.poll(POLL);
                if (records.isEmpty())
                    continue;
                try {
                    p.beginTransaction();
                    Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                    List<Future<RecordMetadata>> sent = new ArrayList<>();
                    for (ConsumerRecord<String, String> r : records) {
                        sent.add(p.send(new ProducerRecord<>(to, r.partition(), r.key(), r.value())));
                        offsets.put(new TopicPartition(from, r.partition()), new OffsetAndMetadata(r.offset() + 1));
                    }
                    p.sendOffsetsToTransaction(offsets, c.groupMetadata());
                    if (++tries % 8 == 3) {
                        if (tries % 16 == 3)
                            p.flush();
                        kills++;
                        kill();
                    }
                    p.commitTransaction();
                } catch (KafkaException e) { // what a program does then: another producer, and back to what is committed
                    p.close(Duration.ZERO);
                    p = null;
                }
                // a commit that failed may be one for whose answer nobody waited: what is committed says it
                Producer<String, String> next = p;
                if (next == null)
                    p = transactional(id); // ends what was open
                long sum = 0;
                Map<TopicPartition, OffsetAndMetadata> commits = c.committed(new HashSet<>(partitions(from)));
                for (TopicPartition part : partitions(from)) {
                    long at = commits.get(part) == null ? 0 : commits.get(part).offset();
                    sum += at;
                    if (next == null && c.assignment().contains(part))
                        c.seek(part, at);
                }
                done = (int) sum;
            }
        } finally {
            if (p != null)
                p.close(Duration.ZERO);
        }
        yes("several kills: " + kills, kills >= 4);
        equal("each once", numbers(0, 1000), sorted(values(to, "read_committed")));
    }

    static void killedStreams() throws Exception {
        String input = topic(3), output = topic(2), application = name("streams");
        Map<String, Long> expected = new TreeMap<>();
        try (KafkaStreams streams = running(application, input, output, "killed")) {
            for (int kills = 1; kills <= 3; kills++) {
                lines(input, expected, 500);
                long all = expected.values().stream().mapToLong(n -> n).sum();
                until("a part is counted", () -> total(output) > all - 800);
                kill();
            }
            lines(input, expected, 500);
            long all = expected.values().stream().mapToLong(n -> n).sum();
            until("all " + all + " are counted", () -> total(output) >= all);
            until("the store has it", () -> expected.equals(store(streams)));
        }
        counted(output, expected);
    }

    // ------------------------------------------------------------------------------------------------------------ main
    public static void main(String[] args) throws Exception {
        server = args[0];
        folder = Files.createDirectories(Path.of(args[1]));
        only = args.length > 2 ? args[2] : "";
        System.out.println("# Java " + System.getProperty("java.version") + ", kafka-clients " + AppInfoParser.getVersion());
        try (Admin a = Admin.create(config(Map.of()))) {
            admin = a;
            var level = a.describeFeatures().featureMetadata().get().finalizedFeatures().get("transaction.version");
            System.out.println("# transaction.version " + (level == null ? "is not announced" : level.maxVersionLevel()));
            producers();
            consumers();
            admins();
            transactions();
            streams();
            sharers();
            killed();
        }
        System.out.println(passed + " passed, " + failed + " failed");
        System.exit(failed == 0 ? 0 : 1);
    }
}
