// kafkajs against the broker at HOST:PORT; the runner compares what is seen here with two brokers.
'use strict';
const zlib = require('zlib');
const kafkajs = require('kafkajs');
const snappy = require('snappyjs');
const lz4 = require('lz4-napi');
const { run, say, until, member, digest, numbers, byName } = require('./steps.js');

const { Kafka, logLevel, CompressionTypes, CompressionCodecs } = kafkajs;
CompressionCodecs[CompressionTypes.Snappy] = () => ({
  compress: async e => Buffer.from(snappy.compress(e.buffer)), decompress: async b => Buffer.from(snappy.uncompress(b)) });
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async e => lz4.compressFrame(e.buffer), decompress: async b => lz4.decompressFrame(b) });
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async e => zlib.zstdCompressSync(e.buffer), decompress: async b => zlib.zstdDecompressSync(b) });

const kafka = new Kafka({ brokers: [process.argv[2]], clientId: 'suite', logLevel: logLevel.NOTHING, requestTimeout: 10000,
                          retry: { initialRetryTime: 20, maxRetryTime: 500, retries: 12 } });
const admin = kafka.admin();
const once = kafka.producer({ allowAutoTopicCreation: false, retry: { retries: 1, initialRetryTime: 20 } });
const word = e => e.type || (e.originalError || e.cause || {}).type || e.name;
const refused = work => work.then(() => 'done', word);
const made = async (topic, numPartitions = 1, configEntries = []) =>
  admin.createTopics({ topics: [{ topic, numPartitions, replicationFactor: 1, configEntries }] });
const text = v => (v === null || v === undefined ? null : v.toString());

// So many records of a topic as a group member sees them from the beginning, in the order of partition and offset.
async function read(topic, count, { group = `read-${topic}`, commit = false, ...options } = {}) {
  const consumer = kafka.consumer({ groupId: group, sessionTimeout: 6000, heartbeatInterval: 500, maxWaitTimeInMs: 50, ...options });
  const out = [];
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({ autoCommit: commit, autoCommitThreshold: 1, eachMessage: async ({ partition, message }) => {
    out.push({ partition, ...message });
  } });
  await until(() => out.length >= count);
  await consumer.disconnect();
  return out.sort((a, b) => a.partition - b.partition || Number(a.offset - b.offset));
}

const shown = r => [r.partition, r.offset, text(r.key), text(r.value), r.timestamp,
                    Object.entries(r.headers || {}).map(([k, v]) => [k, text(v)]).sort(byName)];

const codec = compression => async () => {
  const topic = `codec-${compression}`;
  await made(topic, 2);
  const messages = numbers(40).map(i => ({ key: i % 5 ? `k${i}` : null, value: i % 7 ? `value ${i} ${'x'.repeat(i * 10)}` : null,
                                           partition: i % 2, timestamp: String(1700000000000 + i * 1000),
                                           headers: { n: `${i}`, empty: '' } }));
  const done = await once.send({ topic, compression, acks: -1, messages });
  return [done.map(d => [d.partition, d.errorCode, d.baseOffset]).sort(byName), (await read(topic, 40)).map(shown)];
};

const steps = {
  'topics: create, describe, list': async () => {
    const first = await made('one', 3, [{ name: 'retention.ms', value: '3600000' }]);
    const meta = await admin.fetchTopicMetadata({ topics: ['one'] });
    return [first, await made('one', 3), await refused(made('bad/name')), await refused(made('three', 1, [{ name: 'nonsense', value: '1' }])),
            meta.topics.map(t => [t.name, t.partitions.map(p => [p.partitionId, p.partitionErrorCode, p.leader === p.replicas[0]]).sort(byName)]),
            (await admin.listTopics()).filter(t => t === 'one')];
  },
  'configs: describe, alter': async () => {
    const get = async () => (await admin.describeConfigs({ includeSynonyms: true, resources: [{
      type: 2, name: 'one', configNames: ['retention.ms', 'cleanup.policy', 'max.message.bytes'] }] })).resources[0].configEntries
      .map(e => [e.configName, e.configValue, e.isDefault, e.configSource, e.readOnly]).sort(byName);
    const before = await get();
    await admin.alterConfigs({ validateOnly: false, resources: [{ type: 2, name: 'one', configEntries: [
      { name: 'retention.ms', value: '7200000' }, { name: 'cleanup.policy', value: 'compact' }] }] });
    return [before, await until(async () => { const now = await get(); return JSON.stringify(now) !== JSON.stringify(before) && now; }),
            await refused(admin.alterConfigs({ validateOnly: false, resources: [{ type: 2, name: 'one', configEntries: [
              { name: 'retention.ms', value: 'soon' }] }] }))];
  },
  'partitions: more, and none fewer': async () => {
    await admin.createPartitions({ topicPartitions: [{ topic: 'one', count: 5 }] });
    const count = await until(async () => {
      const n = (await admin.fetchTopicMetadata({ topics: ['one'] })).topics[0].partitions.length;
      return n === 5 && n;
    });
    return [count, await refused(admin.createPartitions({ topicPartitions: [{ topic: 'one', count: 2 }] }))];
  },
  'topics: delete': async () => {
    await made('gone');
    await admin.deleteTopics({ topics: ['gone'] });
    return [await refused(admin.deleteTopics({ topics: ['never'] })),
            await until(async () => !(await admin.listTopics()).includes('gone'))];
  },
  'produce and consume: plain': codec(CompressionTypes.None),
  'produce and consume: gzip': codec(CompressionTypes.GZIP),
  'produce and consume: snappy': codec(CompressionTypes.Snappy),
  'produce and consume: lz4': codec(CompressionTypes.LZ4),
  'produce and consume: zstd': codec(CompressionTypes.ZSTD),
  'acks 0 and 1': async () => {
    await made('acks');
    const one = await once.send({ topic: 'acks', acks: 1, messages: [{ value: 'a' }] });
    const none = await once.send({ topic: 'acks', acks: 0, messages: [{ value: 'b' }] });
    return [one.length, none, (await read('acks', 2)).map(r => text(r.value))];
  },
  'groups: shared, one is killed': async () => {
    await made('shared', 4);
    const a = member('shared-group', 'shared'), b = member('shared-group', 'shared');
    const counts = () => [a, b].map(m => (m.assigned() || []).length);
    await until(() => counts().join() === '2,2');
    await once.send({ topic: 'shared', messages: numbers(40).map(i => ({ value: `${i}`, partition: i % 4 })) });
    await until(() => a.records().length + b.records().length >= 40);
    b.kill();
    await until(() => (a.assigned() || []).length === 4, 60);
    await once.send({ topic: 'shared', messages: numbers(20, 40).map(i => ({ value: `${i}`, partition: i % 4 })) });
    await until(() => numbers(20, 40).every(i => a.records().includes(`${i}`)));
    a.kill();
    return [new Set([...a.records(), ...b.records()]).size, a.assigned().sort()];
  },
  'groups: commit and resume': async () => {
    await made('resume');
    await once.send({ topic: 'resume', messages: numbers(10).map(i => ({ value: `${i}` })) });
    await read('resume', 10, { group: 'resume-group', commit: true });
    await once.send({ topic: 'resume', messages: [{ value: 'after' }] });
    return [(await read('resume', 1, { group: 'resume-group', commit: true })).map(shown).map(r => [r[1], r[3]]),
            await admin.fetchOffsets({ groupId: 'resume-group', topics: ['resume'] })];
  },
  'groups: describe, list, offsets, delete': async () => {
    const of = async () => (await admin.describeGroups(['resume-group', 'no-such'])).groups
      .map(g => [g.groupId, g.errorCode, g.state, g.protocolType, g.protocol, g.members.length]).sort(byName);
    const empty = await until(async () => { const g = await of(); return g[1][2] === 'Empty' && g; });
    await admin.setOffsets({ groupId: 'resume-group', topic: 'resume', partitions: [{ partition: 0, offset: '4' }] });
    const set = await admin.fetchOffsets({ groupId: 'resume-group', topics: ['resume'] });
    await admin.resetOffsets({ groupId: 'resume-group', topic: 'resume', earliest: true });
    const reset = await admin.fetchOffsets({ groupId: 'resume-group', topics: ['resume'], resolveOffsets: true });
    const listed = (await admin.listGroups()).groups.filter(g => g.groupId === 'resume-group');
    const deleted = await admin.deleteGroups(['resume-group']);
    return [empty, set, reset, listed, deleted, await refused(admin.deleteGroups(['no-such']))];
  },
  'seek: by offset and time': async () => {
    await made('seek');
    await once.send({ topic: 'seek', messages: numbers(10).map(i => ({ value: `${i}`, timestamp: String(1700000000000 + i * 1000) })) });
    const times = [];
    for (const t of [1600000000000, 1700000004500, 1700000009000, 1800000000000]) times.push(await admin.fetchTopicOffsetsByTimestamp('seek', t));
    const consumer = kafka.consumer({ groupId: 'seek-group', maxWaitTimeInMs: 50 });
    const out = [];
    await consumer.connect();
    await consumer.subscribe({ topics: ['seek'], fromBeginning: true });
    await consumer.run({ autoCommit: false, eachMessage: async ({ message }) => { out.push(text(message.value)); } });
    consumer.seek({ topic: 'seek', partition: 0, offset: times[1][0].offset });
    await until(() => out.length >= 5);
    await consumer.disconnect();
    return [times, out, await admin.fetchTopicOffsets('seek')];
  },
  'records: deleted to an offset': async () => {
    await admin.deleteTopicRecords({ topic: 'seek', partitions: [{ partition: 0, offset: '3' }] });
    return [await admin.fetchTopicOffsets('seek'), await refused(admin.deleteTopicRecords({ topic: 'seek', partitions: [{ partition: 0, offset: '99' }] }))];
  },
  'idempotent producer': async () => {
    await made('numbered');
    const p = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
    await p.connect();
    for (const i of numbers(20)) await p.send({ topic: 'numbered', messages: [{ value: `${i}` }, { value: `${i}b` }] });
    await p.disconnect();
    return (await read('numbered', 40)).map(r => [r.offset, text(r.value)]);
  },
  'transactions: commit, abort, offsets': async () => {
    await made('txn');
    const p = kafka.producer({ idempotent: true, maxInFlightRequests: 1, transactionalId: 'txn-id' });
    await p.connect();
    const first = await p.transaction();
    await first.send({ topic: 'txn', messages: [{ value: 'kept 1' }, { value: 'kept 2' }] });
    await first.sendOffsets({ consumerGroupId: 'txn-group', topics: [{ topic: 'txn', partitions: [{ partition: 0, offset: '7' }] }] });
    await first.commit();
    const second = await p.transaction();
    await second.send({ topic: 'txn', messages: [{ value: 'dropped' }] });
    await second.sendOffsets({ consumerGroupId: 'txn-group', topics: [{ topic: 'txn', partitions: [{ partition: 0, offset: '9' }] }] });
    await second.abort();
    const third = await p.transaction();
    await third.send({ topic: 'txn', messages: [{ value: 'kept 3' }] });
    await third.commit();
    await p.disconnect();
    const values = async (count, options) => (await read('txn', count, options)).map(r => [r.offset, text(r.value)]);
    return [await values(3, { group: 'txn-committed' }), await values(4, { group: 'txn-all', readUncommitted: true }),
            await admin.fetchOffsets({ groupId: 'txn-group', topics: ['txn'] })];
  },
  'big messages': async () => {
    await made('big');
    await once.send({ topic: 'big', messages: [{ value: 'y'.repeat(1000000) }] });
    await once.send({ topic: 'big', compression: CompressionTypes.GZIP, messages: [{ value: 'z'.repeat(5000000) }] });
    return [await refused(once.send({ topic: 'big', messages: [{ value: 'x'.repeat(2000000) }] })),
            (await read('big', 2, { maxBytesPerPartition: 1000 })).map(r => [r.offset, digest(r.value)])];
  },
  'unknown topics and partitions': async () => {
    const consumer = kafka.consumer({ groupId: 'unknown-group', allowAutoTopicCreation: false, retry: { retries: 1 } });
    await consumer.connect();
    const out = [await refused(once.send({ topic: 'unknown', messages: [{ value: 'x' }] })),
                 await refused(admin.fetchTopicMetadata({ topics: ['unknown'] })), await refused(admin.fetchTopicOffsets('unknown')),
                 await refused(once.send({ topic: 'one', messages: [{ value: 'x', partition: 77 }] })),
                 await refused(consumer.subscribe({ topics: ['un known'] }))];
    await consumer.disconnect();
    return out;
  },
  'connections cut': async () => {
    await made('cut');
    const p = kafka.producer({ idempotent: true, maxInFlightRequests: 1, retry: { retries: 20, initialRetryTime: 20, maxRetryTime: 200 } });
    await p.connect();
    const reader = read('cut', 100, { retry: { retries: 20, initialRetryTime: 20, maxRetryTime: 200 } });
    for (const i of numbers(100)) {
      if (i % 25 === 10) say('cut');
      await p.send({ topic: 'cut', messages: [{ value: `${i}` }] });
    }
    const out = await reader;
    await p.disconnect();
    return [...new Map(out.map(r => [r.offset, text(r.value)]))];
  },
  'cluster': async () => {
    const c = await admin.describeCluster();
    return [c.brokers.length, c.brokers[0].host, c.controller === c.brokers[0].nodeId];
  },
};

async function asMember(group, topic) {
  const consumer = kafka.consumer({ groupId: group, sessionTimeout: 6000, heartbeatInterval: 200, rebalanceTimeout: 3000, maxWaitTimeInMs: 50,
                                    metadataMaxAge: 1000 });
  consumer.on(consumer.events.GROUP_JOIN, e => say('assigned', e.payload.memberAssignment[topic] || []));
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({ eachMessage: async ({ message }) => say('record', text(message.value)) });
}

if (process.argv[3] === 'member') {
  asMember(...process.argv.slice(4));
} else {
  Promise.all([admin.connect(), once.connect()]).then(() => run(steps, word));
}
