// What the programs for Node have in common: steps are run in order, each says what it saw as a line of JSON.
'use strict';
const { spawn } = require('child_process');
const { createHash } = require('crypto');
const { createInterface } = require('readline');

const SECONDS = 100;

function say(...event) {
  process.stdout.write(JSON.stringify(event) + '\n');
}

function late(seconds) {
  return new Promise((_, no) => setTimeout(() => no(new Error('not within its time')), seconds * 1000).unref());
}

async function until(condition, seconds = 30) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error('not within its time');
    await new Promise(yes => setTimeout(yes, 20));
  }
}

// steps: {name: async function}; word: what an error is called in the report.
async function run(steps, word) {
  for (const [name, step] of Object.entries(steps)) {
    if (!name.includes(process.env.MILLRACE_STEP || '')) continue;
    try {
      say('seen', name, await Promise.race([step(), late(SECONDS)]));
    } catch (e) {
      say('failed', name, word(e));
      process.stderr.write(`${name}: ${e.stack}\n`);
    }
  }
  say('end');
  process.exit(0);
}

// The same program again as a member of a group, in a process that can be killed.  Its lines come as events.
function member(...args) {
  const child = spawn(process.execPath, [process.argv[1], process.argv[2], 'member', ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const events = [];
  createInterface({ input: child.stdout }).on('line', line => events.push(JSON.parse(line)));
  return { events, assigned: () => events.filter(e => e[0] === 'assigned').at(-1)?.[1],
           records: () => events.filter(e => e[0] === 'record').map(e => e[1]), kill: () => child.kill('SIGKILL') };
}

const digest = data => data === null || data === undefined ? null : createHash('sha256').update(data).digest('hex').slice(0, 12);
const numbers = (count, from = 0) => Array.from({ length: count }, (_, i) => i + from);
const byName = (a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);

module.exports = { run, say, until, member, digest, numbers, byName };
