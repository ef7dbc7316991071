// @platformatic/kafka against the broker at HOST:PORT; it speaks only the newest versions of each request.
import { Admin, Consumer, Producer } from '@platformatic/kafka';
import steps_ from './steps.js';

const { run, say, until, member, digest, numbers, byName } = steps_;
const base = { bootstrapBrokers: [process.argv[2]], clientId: 'suite', retries: 20, retryDelay: 50, metadataMaxAge: 1000 };
const admin = new Admin(base);
const once = new Producer({ ...base, autocreateTopics: false });

// The innermost error that names what Kafka said.
function word(e) {
  for (const inner of [...(e.errors || []), ...(e.cause ? [e.cause] : [])]) {
    const said = word(inner);
    if (said !== 'Error') return said;
  }
  return e.apiId || e.code || e.name;
}
const refused = work => work.then(() => 'done', word);
const big = v => (typeof v === 'bigint' ? Number(v) : v instanceof Map ? [...v].map(big).sort(byName) : Array.isArray(v) ? v.map(big) : v);
const text = v => (v === null || v === undefined ? null : v.toString());
const made = async (topic, partitions = 1, configs = []) => {
  const done = await admin.createTopics({ topics: [topic], partitions, replicas: 1, configs });
  await until(() => admin.metadata({ topics: [topic], forceUpdate: true }).then(m => m.topics.get(topic).partitionsCount === partitions, () => false));
  return done;
};
const send = (topic, messages, options = {}) => once.send({ acks: -1, ...options, messages: messages.map(m => ({ topic, ...m })) });
const buffer = v => (v === null || v === undefined ? v : Buffer.from(v));

async function read(topic, count, { group = `read-${topic}`, mode = 'earliest', commit = false, ...options } = {}) {
  const consumer = new Consumer({ ...base, groupId: group, sessionTimeout: 6000, heartbeatInterval: 500, maxWaitTime: 50 });
  const stream = await consumer.consume({ topics: [topic], mode, fallbackMode: 'earliest', autocommit: commit, ...options });
  const out = [];
  stream.on('data', m => out.push(m));
  await until(() => out.length >= count);
  if (commit) await new Promise(yes => setTimeout(yes, 200));
  await stream.close();
  await consumer.close(true);
  return out.sort((a, b) => a.partition - b.partition || Number(a.offset - b.offset));
}

const shown = m => [m.partition, big(m.offset), text(m.key), text(m.value), big(m.timestamp),
                    [...m.headers].map(([k, v]) => [text(k), text(v)]).sort(byName)];

const codec = compression => async () => {
  const topic = `codec-${compression}`;
  await made(topic, 2);
  const done = await send(topic, numbers(40).map(i => ({
    key: i % 5 ? buffer(`k${i}`) : undefined, value: buffer(i % 7 ? `value ${i} ${'x'.repeat(i * 10)}` : ''), partition: i % 2,
    timestamp: BigInt(1700000000000 + i * 1000), headers: new Map([[buffer('n'), buffer(`${i}`)]]) })), { compression });
  return [done.offsets.map(o => [o.partition, big(o.offset)]).sort(byName), (await read(topic, 40)).map(shown)];
};

const offsetsOf = async group => big((await admin.listConsumerGroupOffsets({ groups: [group] }))[0].topics
  .map(t => [t.name, t.partitions.map(p => [p.partitionIndex, big(p.committedOffset), p.metadata])]));

const shared = protocol => async () => {
  const name = `shared-${protocol}`;
  await made(name, 4);
  const a = member(name, name, protocol), b = member(name, name, protocol);
  const counts = () => [a, b].map(m => (m.assigned() || []).length);
  await until(() => counts().join() === '2,2');
  await send(name, numbers(40).map(i => ({ value: buffer(`${i}`), partition: i % 4 })));
  await until(() => a.records().length + b.records().length >= 40);
  b.kill();
  await until(() => (a.assigned() || []).length === 4, 60);
  await send(name, numbers(20, 40).map(i => ({ value: buffer(`${i}`), partition: i % 4 })));
  await until(() => numbers(20, 40).every(i => a.records().includes(`${i}`)));
  a.kill();
  return [new Set([...a.records(), ...b.records()]).size, a.assigned().sort()];
};

const steps = {
  'topics: create, describe, list': async () => {
    const first = (await made('one', 3, [{ name: 'retention.ms', value: '3600000' }]))
      .map(t => [t.name, t.partitions, t.replicas, t.id.length, t.configuration && t.configuration['retention.ms']]);
    const meta = await admin.metadata({ topics: ['one'] });
    return [first, await refused(admin.createTopics({ topics: ['one'], partitions: 3, replicas: 1 })),
            await refused(admin.createTopics({ topics: ['bad/name'], partitions: 1, replicas: 1 })),
            await refused(admin.createTopics({ topics: ['far'], partitions: 1, replicas: 3 })),
            meta.topics.get('one').partitions.map(p => [p.leader === p.replicas[0], p.isr.length]), (await admin.listTopics()).filter(t => t === 'one')];
  },
  'configs: describe, alter': async () => {
    const get = async () => (await admin.describeConfigs({ includeSynonyms: true, resources: [{ resourceType: 2, resourceName: 'one',
      configurationKeys: ['retention.ms', 'cleanup.policy', 'max.message.bytes', 'segment.bytes'] }] }))[0].configs
      .map(c => [c.name, c.value, c.configSource, c.readOnly, c.configType, c.synonyms.map(s => [s.name, s.value, s.source])]).sort(byName);
    const set = (name, value, configOperation = 0) => admin.incrementalAlterConfigs({ resources: [{ resourceType: 2, resourceName: 'one',
      configs: [{ name, configOperation, value }] }] });
    const before = await get();
    await set('retention.ms', '7200000');
    await set('cleanup.policy', 'compact', 2);
    const after = await until(async () => { const now = await get(); return now[0][1] === 'delete,compact' && now; });
    return [before, after, await refused(set('retention.ms', 'soon')), await refused(set('nonsense', '1'))];
  },
  'partitions: more, and none fewer': async () => {
    const set = (name, count) => admin.createPartitions({ topics: [{ name, count, assignments: null }] });
    await set('one', 5);
    return [await until(async () => (await admin.metadata({ topics: ['one'], forceUpdate: true })).topics.get('one').partitionsCount === 5),
            await refused(set('one', 2)), await refused(set('never', 2))];
  },
  'topics: delete': async () => {
    await made('gone');
    await admin.deleteTopics({ topics: ['gone'] });
    return [await refused(admin.deleteTopics({ topics: ['never'] })), await until(async () => !(await admin.listTopics()).includes('gone'))];
  },
  'produce and consume: plain': codec('none'),
  'produce and consume: gzip': codec('gzip'),
  'produce and consume: snappy': codec('snappy'),
  'produce and consume: lz4': codec('lz4'),
  'produce and consume: zstd': codec('zstd'),
  'acks 0 and 1': async () => {
    await made('acks');
    const one = await send('acks', [{ value: buffer('a') }], { acks: 1 });
    await send('acks', [{ value: buffer('b') }], { acks: 0 });
    return [big(one.offsets[0].offset), (await read('acks', 2)).map(r => text(r.value))];
  },
  'groups: shared, one is killed': shared('classic'),
  'groups: the broker assigns (KIP-848)': shared('consumer'),
  'groups: commit and resume': async () => {
    await made('resume');
    await send('resume', numbers(10).map(i => ({ value: buffer(`${i}`) })));
    await read('resume', 10, { group: 'resume-group', commit: true });
    await send('resume', [{ value: buffer('after') }]);
    return [(await read('resume', 1, { group: 'resume-group', mode: 'committed', commit: true })).map(r => [big(r.offset), text(r.value)]),
            await offsetsOf('resume-group')];
  },
  'groups: describe, list, offsets, delete': async () => {
    const described = async () => [...(await admin.describeGroups({ groups: ['resume-group'] })).values()]
      .map(g => [g.id, g.state, g.protocolType, g.protocol, g.members.size]);
    const empty = await until(async () => { const g = await described(); return g[0][1].toUpperCase() === 'EMPTY' && g; });
    await admin.alterConsumerGroupOffsets({ groupId: 'resume-group', topics: [{ name: 'resume', partitionOffsets: [{ partition: 0, offset: 4n }] }] });
    const set = await offsetsOf('resume-group');
    const listed = [...(await admin.listGroups()).values()].filter(g => g.id === 'resume-group').map(g => [g.id, g.state, g.groupType, g.protocolType]);
    const removed = await admin.deleteConsumerGroupOffsets({ groupId: 'resume-group', topics: [{ name: 'resume', partitionIndexes: [0] }] });
    await admin.deleteGroups({ groups: ['resume-group'] });
    return [empty, set, listed, removed, await refused(admin.deleteGroups({ groups: ['no-such'] })),
            await refused(admin.describeGroups({ groups: ['no-such'] }))];
  },
  'seek: by offset and time': async () => {
    await made('seek');
    await send('seek', numbers(10).map(i => ({ value: buffer(`${i}`), timestamp: BigInt(1700000000000 + i * 1000) })));
    const times = [];
    for (const t of [-1n, -2n, -3n, 1600000000000n, 1700000004500n, 1700000009000n, 1800000000000n]) {
      const got = await admin.listOffsets({ topics: [{ name: 'seek', partitions: [{ partitionIndex: 0, timestamp: t }] }] });
      times.push([big(got[0].partitions[0].offset), big(got[0].partitions[0].timestamp)]);
    }
    return [times, (await read('seek', 5, { mode: 'manual', offsets: [{ topic: 'seek', partition: 0, offset: 5n }] })).map(r => text(r.value))];
  },
  'records: deleted to an offset': async () => {
    const to = async offset => (await admin.deleteRecords({ topics: [{ name: 'seek', partitions: [{ partition: 0, offset }] }] }))[0]
      .partitions.map(p => big(p.lowWatermark));
    return [await to(3n), await refused(to(99n)), (await read('seek', 7, { group: 'after-delete' })).map(r => text(r.value))];
  },
  'idempotent producer': async () => {
    await made('numbered');
    const p = new Producer({ ...base, idempotent: true });
    for (const i of numbers(20)) await p.send({ messages: [`${i}`, `${i}b`].map(v => ({ topic: 'numbered', value: buffer(v) })) });
    await p.close();
    return (await read('numbered', 40)).map(r => [big(r.offset), text(r.value)]);
  },
  'transactions: commit, abort, offsets': async () => {
    await made('txn');
    const p = new Producer({ ...base, idempotent: true, transactionalId: 'txn-id' });
    const one = async (values, end) => {
      const t = await p.beginTransaction();
      await t.send({ messages: values.map(v => ({ topic: 'txn', value: buffer(v) })) });
      await t[end]();
    };
    await one(['kept 1', 'kept 2'], 'commit');
    await one(['dropped'], 'abort');
    await one(['kept 3'], 'commit');
    await p.close();
    const values = async (count, options) => (await read('txn', count, options)).map(r => [big(r.offset), text(r.value)]);
    return [await values(3, { group: 'txn-committed', isolationLevel: 1 }), await values(4, { group: 'txn-all', isolationLevel: 0 })];
  },
  'big messages': async () => {
    await made('big');
    await send('big', [{ value: Buffer.alloc(1000000, 'y') }]);
    await send('big', [{ value: Buffer.alloc(5000000, 'z') }], { compression: 'gzip' });
    return [await refused(send('big', [{ value: Buffer.alloc(2000000, 'x') }])),
            (await read('big', 2, { maxBytesPerPartition: 1000 })).map(r => [big(r.offset), digest(r.value)])];
  },
  'unknown topics and partitions': async () => [
    await refused(new Producer({ ...base, retries: 1 }).send({ acks: -1, autocreateTopics: false, messages: [{ topic: 'unknown', value: buffer('x') }] })),
    await refused(new Admin({ ...base, retries: 1 }).metadata({ topics: ['unknown'] })),
    await refused(new Admin({ ...base, retries: 1 }).listOffsets({ topics: [{ name: 'unknown', partitions: [{ partitionIndex: 0, timestamp: -1n }] }] }))],
  'connections cut': async () => {
    await made('cut');
    const p = new Producer({ ...base, idempotent: true });
    for (const i of numbers(100)) {
      if (i % 25 === 10) say('cut');
      await p.send({ messages: [{ topic: 'cut', value: buffer(`${i}`) }] });
    }
    await p.close();
    return (await read('cut', 100)).map(r => [big(r.offset), text(r.value)]);
  },
};

async function asMember(group, topic, groupProtocol) {
  const classic = { groupProtocol, sessionTimeout: 6000, heartbeatInterval: 200, rebalanceTimeout: 6000 };
  const consumer = new Consumer({ ...base, groupId: group, maxWaitTime: 50, ...(groupProtocol === 'classic' ? classic : { groupProtocol }) });
  const tell = () => say('assigned', (consumer.assignments || []).filter(a => a.topic === topic).flatMap(a => a.partitions).sort());
  const stream = await consumer.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest', autocommit: true });
  stream.on('data', m => say('record', text(m.value)));
  stream.on('error', e => process.stderr.write(`member: ${e.stack}\n`));
  tell();
  let last = '';
  setInterval(() => {                  // the two protocols tell of it with different events
    const now = JSON.stringify(consumer.assignments);
    if (now !== last) tell();
    last = now;
  }, 50);
}

if (process.argv[3] === 'member') {
  await asMember(...process.argv.slice(4));
} else {
  await run(steps, word);
}
